"""Checkpoint files of the released structure give exactly their tensors, by the published names and in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import official_files as official
from cloverleaf.errors import CheckpointError
from cloverleaf.weights.reader import read_checkpoint, read_official

KEYS = Path(__file__).parents[1] / "golden" / "yolov7" / "keys"
QUICK = ("yolov7-tiny", "yolov7-tiny-deploy")
FILES = [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.slow) for p in sorted(KEYS.iterdir())]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return official.random_state((KEYS / "yolov7-tiny.txt").read_text())


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in found.items():
        assert value.dtype == (torch.float16 if expected[key].is_floating_point() else torch.int64)
        assert torch.equal(value, expected[key].to(value.dtype)), key


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("keys", FILES)
def test_released_structure(keys: Path, legacy: bool, tmp_path: Path) -> None:
    state = official.random_state(keys.read_text())
    model = official.official_model(state)
    make = official.reparameterised if keys.stem.endswith("-deploy") else official.stripped
    path = official.write(tmp_path / "model.pt", make(model), legacy=legacy)
    found = read_checkpoint(path)
    assert_equal(dict(found.state), state)
    assert (found.source, found.kind, found.epoch) == ("model", "legacy" if legacy else "zip", -1)
    assert found.num_classes == 80 and found.class_names[79] == "class 79" and found.strides[:3] == (8, 16, 32)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_running_training_gives_its_average(state: dict[str, Tensor], legacy: bool, tmp_path: Path) -> None:
    raw = official.official_model(official.half_apart(state))
    path = official.write(tmp_path / "last.pt", official.running(raw, official.official_model(state)), legacy=legacy)
    found = read_checkpoint(path)
    assert_equal(dict(found.state), state)
    assert (found.source, found.epoch) == ("ema", 37)


def test_plain_state_dicts_and_safetensors(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}
    contents = {"": state, "state_dict": {"state_dict": state, "epoch": 3}, "model": {"ema": None, "model": state}}
    for source, content in contents.items():
        path = official.write(tmp_path / "plain.pt", content)
        found = read_checkpoint(path)
        assert found.source == source and list(found.state) == list(state)
        assert all(torch.equal(found.state[key], value) for key, value in state.items())
    official.write(path, nn.DataParallel(nn.Linear(2, 2)))
    assert list(read_official(path)) == ["weight", "bias"]
    save_file({f"module.{key}": value for key, value in state.items()}, tmp_path / "plain.safetensors")
    found = read_checkpoint(tmp_path / "plain.safetensors")
    assert found.kind == "safetensors" and sorted(found.state) == sorted(state)


def test_types_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "whole": base, "rows": base.view(4, 6)[1:3], "turned": base.view(4, 6).T, "steps": base[1::5], "one": base[7],
        "expanded": torch.ones(3)[:1].expand(3), "empty": torch.zeros(0, 4), "half": base.half(), "wide": base.double(),
        "bf16": base.bfloat16(), "byte": torch.ones(5, dtype=torch.uint8), "int8": torch.tensor([-3], dtype=torch.int8),
        "flags": torch.tensor([True, False, True]), "parameter": nn.Parameter(base[:2].clone()),
    }  # fmt: skip
    for legacy in (False, True):
        found = read_official(official.write(tmp_path / "views.pt", state, legacy=legacy))
        assert list(found) == list(state)
        for key, value in found.items():
            assert value.dtype == state[key].dtype and torch.equal(value, state[key]), key
            assert not value.requires_grad
        assert found["rows"].untyped_storage().data_ptr() == found["turned"].untyped_storage().data_ptr()


def test_buffers_that_are_not_kept_and_empty_slots(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Identity())
    module.register_buffer("scratch", torch.zeros(3), persistent=False)
    module.register_buffer("kept", torch.ones(2))
    module.register_module("nothing", None)
    found = read_official(official.write(tmp_path / "m.pt", module))
    assert list(found) == list(module.state_dict()) == ["kept", "0.weight"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog"], ("cat", "dog")),
        ({1: "dog", 0: "cat"}, ("cat", "dog")),
        ({1: "dog", 2: "cat"}, ()),
        (["cat", 3], ()),
        ("cat", ()),
        (["a\x1b[31m\nb"], ("a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b",)),
    ],
)
def test_class_names(names: object, expected: tuple[str, ...], tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    module.names = names
    assert read_checkpoint(official.write(tmp_path / "m.pt", {"model": module})).class_names == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": 3}, "entry 'model' of the file is neither a module nor a state dict"),
        ([torch.zeros(2)], "the file is neither"),
        ({"epoch": 3}, "its entry epoch is no tensor"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"model": nn.Identity()}, "holds no tensors"),
    ],
)
def test_files_without_a_model(content: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_official(official.write(tmp_path / "m.pt", content))
