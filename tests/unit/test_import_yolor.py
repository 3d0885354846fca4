"""Files of Scaled-YOLOv4 and YOLOR in darknet's form: recognition, forms, classes, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import cloverleaf
from cloverleaf.cli.import_ import import_
from cloverleaf.errors import CheckpointError
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.spec import Form
from cloverleaf.weights import export_state_dict, import_checkpoint, import_state_dict
from cloverleaf.weights.importer import published_shapes
from cloverleaf.weights.importers.yolor_darknet import NAMES
from cloverleaf.weights.recognise import recognise

app = typer.Typer()
app.command("import")(import_)
NARROW: dict[str, Any] = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}}


def state_of(name: str, form: Form = "training", num_classes: int = 80) -> dict[str, Tensor]:
    """Published names and shapes; each tensor holds its place in the list of names, in the storage of one number."""
    spec = find_spec(name).with_overrides({})
    spec = {"training": spec, "deploy": spec.as_deployed(), "fused": spec.as_fused()}[form]
    shapes = published_shapes(type(spec).from_dict(spec.to_dict() | {"num_classes": num_classes}))
    counters = torch.int64, torch.float32
    return {key: torch.tensor(i / 64, dtype=torch.float32).expand(shape) if shape
            else torch.tensor(i, dtype=counters[not key.endswith("num_batches_tracked")])
            for i, (key, shape) in enumerate(shapes.items())}  # fmt: skip


def write(path: Path, state: dict[str, Tensor]) -> Path:
    """As the published training writes it, but in float16, which holds these values exactly."""
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    facts = {"epoch": 299, "best_fitness": 0.52, "best_fitness_p": 0.6, "training_results": "  299/299 ...",
             "optimizer": None, "wandb_id": None}  # fmt: skip
    torch.save(facts | {"model": state}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_recognised(name: str) -> None:
    state = state_of(name, num_classes=3)
    found = recognise(state)
    form = "training" if name.startswith("yolor") else "deploy"
    assert (found.name, found.form, found.share, found.also) == (name, form, 1.0, ())


@pytest.mark.parametrize("form", ["training", "deploy", pytest.param("fused", marks=pytest.mark.slow)])
def test_files_come_in_and_go_out(form: Form, tmp_path: Path) -> None:
    """What is folded is of our own making; of yolor-csp it would be that of yolov4-csp."""
    state = state_of("yolor-p6-darknet", form, num_classes=2)
    done = import_checkpoint(write(tmp_path / "a.pt", state))
    assert (done.name, done.found, done.also, done.classes_found) == ("yolor-p6-darknet", form, (), 2)
    again = export_state_dict(done.detector)
    assert list(again) == list(state)
    for key, value in again.items():
        assert value.shape == state[key].shape and bool((value == state[key].flatten()[0]).all()), key
    assert done.detector.metadata is not None and done.detector.metadata.image_size == 1280
    published = find_spec("yolor-p6-darknet").head.anchors_px  # type: ignore[attr-defined]
    assert torch.equal(done.detector.anchors_px, torch.tensor(published, dtype=torch.float32))


def test_command_says_what_was_found(tmp_path: Path) -> None:
    path = write(tmp_path / "best.pt", state_of("yolor-p6-darknet"))
    result = CliRunner().invoke(app, [str(path), "--num-classes", "3"], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "its entry 'model'" in result.output
    assert "found yolor-p6-darknet in training form: 862 tensors, all accounted for" in result.output
    assert "started anew for 3 classes" in result.output
    assert cloverleaf.load(tmp_path / "best.safetensors").num_classes == 3


def test_mistakes_are_named(tmp_path: Path) -> None:
    state = state_of("yolor-p6-darknet")
    path = write(tmp_path / "best.pt", state)
    with pytest.raises(CheckpointError, match="yolor-p6-darknet in training form") as error:
        import_checkpoint(path, "yolor-w6-darknet")
    assert error.value.fix == "use --model yolor-p6-darknet"
    with pytest.raises(CheckpointError, match="80 classes, not 3"):
        import_state_dict("yolor-p6-darknet", state, num_classes=3)
    missing = {key: value for key, value in state.items() if key != "module_list.16.Conv2d.weight"}
    with pytest.raises(CheckpointError, match=r"missing: module_list\.16\.Conv2d\.weight"):
        import_checkpoint(write(tmp_path / "missing.pt", missing))
    odd = state | {"module_list.214.Conv2d.bias": torch.zeros(256)}
    with pytest.raises(CheckpointError, match="256 values, for 3 anchors"):
        import_state_dict("yolor-p6-darknet", odd)
    norms_folded = {key: value for key, value in state.items() if "BatchNorm2d" not in key}
    with pytest.raises(CheckpointError, match="norms are folded and its implicit knowledge is not"):
        import_state_dict("yolor-p6-darknet", norms_folded)
    (tmp_path / "yolov4-csp.weights").write_bytes(bytes((0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0)) + bytes(100))
    with pytest.raises(CheckpointError, match="a file of darknet"):
        import_checkpoint(tmp_path / "yolov4-csp.weights")


@pytest.mark.parametrize(
    "changes",
    [{"backbone": {"downsample": "pooled-csp"}}, {"neck": {"spp_order": "itself-first"}}, {"head": {"bins": 4}}],
)
def test_other_blocks_have_no_published_names(changes: dict[str, Any]) -> None:
    model = cloverleaf.create_model("yolor-csp", **(NARROW | changes))
    with pytest.raises(CheckpointError, match="cannot be written with published names"):
        export_state_dict(model)


def test_other_widths_have_published_names() -> None:
    state = export_state_dict(cloverleaf.create_model("yolor-csp", **NARROW))
    assert list(state) == list(published_shapes(find_spec("yolor-csp")))
