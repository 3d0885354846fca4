"""RevCol's published state dicts: names, order, shapes and types, both ways, in every form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cloverleaf
import official_files as official
from cloverleaf.errors import CheckpointError
from cloverleaf.heads.supervision import ColumnSupervisionSpec
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.weights import export_state_dict, import_state_dict
from cloverleaf.weights.importer import describe, published_shapes
from cloverleaf.weights.importers.revcol import OTHER, export_backbone, read_backbone
from cloverleaf.weights.recognise import recognise
from golden.revcol_cases import HUGE, SMALL

KEYS = Path(__file__).parent / "revcol" / "keys"
# Catalog name, form, decoders, classes, options of the backbone.
FILES: dict[str, tuple[str, str, str | None, int, dict[str, Any]]] = {
    "huge_config": (OTHER, "deploy", None, 10, HUGE),
    "revcol_base": ("revcol-base", "training", "full", 1000, {}),
    "revcol_base_22k": ("revcol-base", "training", "simple", 21841, {}),
    "revcol_huge_single_head": ("revcol-huge", "deploy", None, 1000, {}),
    "revcol_large_single_head": ("revcol-large", "deploy", None, 1000, {}),
    "revcol_small": ("revcol-small", "training", "full", 1000, {}),
    "revcol_tiny": ("revcol-tiny", "training", "full", 1000, {}),
    "revcol_tiny_single_head": ("revcol-tiny", "deploy", None, 1000, {}),
    "revcol_xlarge_single_head": ("revcol-xlarge", "deploy", None, 1000, {}),
    "small_config_inter": (OTHER, "training", "full", 10, SMALL),
    "small_config_inter_1001": (OTHER, "training", "simple", 1001, SMALL),
    "small_config_single_head": (OTHER, "deploy", None, 10, SMALL),
}
READ = ("small_config_single_head", "small_config_inter", "small_config_inter_1001", "huge_config", "revcol_tiny")


def published(stem: str) -> dict[str, Tensor]:
    return official.random_state((KEYS / f"{stem}.txt").read_text())


def expected_spec(stem: str) -> Any:
    name, _, decoder, classes, options = FILES[stem]
    spec = find_spec(name)
    supervision = ColumnSupervisionSpec(decoder=decoder) if decoder else None  # type: ignore[arg-type]
    return replace(spec, backbone=replace(spec.backbone, **options), num_classes=classes, supervision=supervision)


def described(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    return [f"{name}\t{shape}\tfloat32" for name, shape in shapes.items()]


def test_every_list_of_names_is_here() -> None:
    assert {path.stem for path in KEYS.glob("*.txt")} == {*FILES, "backbone_tiny"}


@pytest.mark.parametrize("stem", FILES)
def test_published_names_shapes_and_order(stem: str) -> None:
    """Of the structure alone, as the largest has billions of parameters."""
    lines = (KEYS / f"{stem}.txt").read_text().splitlines()
    assert described(published_shapes(expected_spec(stem))) == lines
    empty = {name: torch.empty(eval_shape(shape), device="meta") for name, shape, _ in (x.split("\t") for x in lines)}
    spec = describe("", empty)
    assert spec is not None and spec.name == FILES[stem][0] and spec.backbone == expected_spec(stem).backbone
    likeness = recognise(empty)
    if spec.name != OTHER:
        assert (likeness.name, likeness.form, likeness.share, likeness.also) == (spec.name, FILES[stem][1], 1.0, ())
    else:
        assert not likeness.is_likely


def eval_shape(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.strip("()").split(",") if side.strip())


@pytest.mark.parametrize("stem", READ)
def test_state_dicts_come_in_and_back_bit_for_bit(stem: str) -> None:
    state = published(stem)
    model = import_state_dict(FILES[stem][0], state)
    assert model.spec == expected_spec(stem) and model.spec.form == FILES[stem][1]
    again = export_state_dict(model)
    assert list(again) == list(state)
    for key, value in again.items():
        idle = key.startswith("subnet0.alpha")  # of no effect: not kept, and written as the published initial value
        assert torch.equal(value, torch.full_like(value, 0.5) if idle else state[key]), key
    assert all(p.dtype == torch.float32 for p in model.parameters())
    deployed = model.deployed()
    assert deployed.spec.form == "deploy" and not any(key.startswith("supervision") for key in deployed.state_dict())


def test_the_last_of_several_classifiers_is_the_model_s_own() -> None:
    state = published("small_config_inter")
    model = import_state_dict(OTHER, state)
    assert torch.equal(model.head.linear.bias, state["cls_blocks.3.classifier.1.bias"])
    assert torch.equal(model.supervision.heads[1].norm.weight, state["cls_blocks.1.classifier.0.weight"])
    assert model.supervision.columns == (0, 1, 2)
    single = {k.replace("cls_blocks.3", "cls"): v for k, v in state.items() if "cls_blocks.3" in k or "subnet" in k
              or "stem" in k}  # fmt: skip
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images).logits, import_state_dict(OTHER, single)(images).logits)


def test_a_backbone_alone_and_in_a_detector() -> None:
    text = (KEYS / "backbone_tiny.txt").read_text()
    state = official.random_state(text)
    in_detector = {f"backbone.{key}": value for key, value in state.items()} | {"neck.fpn.weight": torch.ones(1)}
    for given, left in ((state, ()), (in_detector, ("neck.fpn.weight",))):
        spec, backbone, left_out = read_backbone("x", given)
        assert left_out == left and spec == replace(find_spec("revcol-tiny").backbone, drop_path=0.0)
        again = export_backbone(backbone, spec)
        assert described({key: tuple(value.shape) for key, value in again.items()}) == text.splitlines()
        assert all(torch.equal(value, state[key]) for key, value in again.items() if "subnet0.alpha" not in key)
        with pytest.raises(CheckpointError, match=r"backbone without a classifier.*--backbone"):
            import_state_dict("revcol-tiny", given)


def test_larger_kernels_of_a_variant_are_read() -> None:
    spec = find_spec("revcol-pico")
    seven = replace(spec, backbone=replace(spec.backbone, kernel_size=7))
    state = export_state_dict(empty_detector(seven))
    model = import_state_dict("revcol-pico", state)
    assert model.spec == seven
    likeness = recognise(state)
    assert (likeness.name, likeness.share) == ("revcol-pico", 1.0)


def test_what_does_not_fit_is_listed() -> None:
    state = published("small_config_single_head")
    broken = {**state, "extra": torch.zeros(1), "subnet1.level2.fusion.down.0.bias": torch.zeros(7)}
    del broken["subnet2.level1.blocks.0.norm.bias"], broken["cls.classifier.0.bias"]
    with pytest.raises(CheckpointError) as caught:
        import_state_dict(OTHER, broken)
    text = str(caught.value)
    assert "2 missing: subnet2.level1.blocks.0.norm.bias, cls.classifier.0.bias" in text
    assert (
        "1 left over: extra" in text and "1 mis-shaped: subnet1.level2.fusion.down.0.bias (7,) instead of (24,)" in text
    )
    with pytest.raises(CheckpointError, match="its head has 10 classes, not 3"):
        import_state_dict(OTHER, state, num_classes=3)
    with pytest.raises(CheckpointError, match="missing"):
        import_state_dict("revcol-tiny", state)
    with pytest.raises(CheckpointError, match="missing"):
        import_state_dict("gold-yolo-n", state)
    halved = import_state_dict(OTHER, {key: value.half() for key, value in state.items()})
    assert {p.dtype for p in halved.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"subnet63.level3.blocks.63.gamma": (16384,)}, "missing"),  # nothing of that size is built
        ({"subnet64.level3.blocks.0.gamma": (32,)}, "columns = 65"),
        ({"subnet12345678.level3.blocks.0.gamma": (32,)}, "columns = "),
        ({"subnet0.level0.blocks.0.gamma": (0,)}, r"channels\.0 = 0"),
        ({"subnet0.level0.blocks.0.dwconv.weight": (8, 1, 2, 2)}, "kernel_size = 2"),
        ({f"subnet{n}.level0.blocks.0.gamma": (16384,) for n in range(4)}, "smaller than the others say"),
        ({"cls_blocks.0.classifier.1.bias": (10,)}, "1 classifiers on 4 columns"),
        ({"cls.classifier.1.bias": ()}, "mis-shaped"),
    ],
)
def test_impossible_shapes_are_refused_before_anything_is_built(change: dict[str, tuple[int, ...]], why: str) -> None:
    state = published("small_config_single_head") | {key: torch.zeros(()).expand(size) for key, size in change.items()}
    with pytest.raises(CheckpointError, match=why):
        import_state_dict(OTHER, state)


def test_expanded_tensors_do_not_count_as_many() -> None:
    lines = (KEYS / "revcol_large_single_head.txt").read_text().splitlines()
    state = {name: torch.zeros(()).expand(eval_shape(shape)) for name, shape, _ in (line.split("\t") for line in lines)}
    with pytest.raises(CheckpointError, match="smaller than the others say"):
        import_state_dict(OTHER, state)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"backbone": {"block": "rep"}}, "other blocks or another fusion"),
        ({"backbone": {"fusion": "attention"}}, "other blocks or another fusion"),
        ({"supervision": {"type": "columns", "heads": False}}, "another than classifiers"),
        ({"supervision": {"type": "columns", "parts": 2}}, "every quarter"),
        ({"supervision": "columns", "backbone": {"columns": 3}}, "every quarter"),
    ],
)
def test_what_published_names_cannot_express_is_refused(options: dict[str, Any], why: str) -> None:
    narrow = {"channels": [4, 4, 4, 4], **options.pop("backbone", {})}
    with pytest.raises(CheckpointError, match=f"cannot be written with published names.*{why}"):
        export_state_dict(cloverleaf.create_model("revcol-pico", backbone=narrow, **options))
    with pytest.raises(CheckpointError, match="no published checkpoint names"):
        export_state_dict(empty_detector(find_spec("revcol-pico+elan-pan+anchor")))
