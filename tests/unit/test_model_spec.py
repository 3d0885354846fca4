"""Names, options and what is said when they are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import cloverleaf
from cloverleaf.errors import CloverleafError, ConfigError, UnknownModelError
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.spec import DetectorSpec


def test_catalog_lists_by_pattern() -> None:
    assert "yolov7-tiny" in cloverleaf.list_models("yolov7*")
    assert cloverleaf.list_models("no-such-*") == []


def test_options_reach_each_part() -> None:
    model = cloverleaf.create_model(
        "yolov7-tiny",
        num_classes=2,
        backbone={"width": 0.5},
        neck={"depth": 3},
        head={"implicit": False, "width": 0.5, "anchors_px": [[[8, 8]], [[20, 20]], [[60, 60]]]},
    )
    assert model.backbone.features.channels == (64, 128, 256)
    assert model.neck.features.channels == (32, 64, 128)  # follows the backbone
    assert len(model.neck.down_merge[0].chain) == 3
    assert model.head.levels[0].project.in_channels == 32 and model.head.levels[0].project.out_channels == 7
    assert model.spec.form == "deploy" and model.anchors_px.shape == (3, 1, 2)
    assert (model.num_classes, model.strides, model.max_stride) == (2, (8, 16, 32), 32)


WRONG: list[tuple[str, dict[str, Any], type[CloverleafError], str]] = [
    ("yolov7-tny", {}, UnknownModelError, "yolov7-tiny"),
    ("elan-tiny+elan-pan", {}, UnknownModelError, r"BACKBONE\+NECK\+HEAD"),
    ("timm/resnet18", {}, UnknownModelError, r"timm/resnet18\+none\+classify"),
    ("csp-darknet", {}, UnknownModelError, r"csp-darknet\+c2f-pan\+dense"),
    ("revcol-nano-rep", {}, UnknownModelError, r"revcol-nano-rep\+c2f-pan"),
    ("elan-tiny+elan-pam+anchor", {}, UnknownModelError, "'elan-pan'"),
    ("yolov7-tiny", {"num_classes": 0}, ConfigError, "at least one class"),
    ("yolov7-tiny", {"num_classes": True}, ConfigError, "whole number"),
    ("yolov7-tiny", {"nek": {}}, ConfigError, "'neck'"),
    ("yolov7-tiny", {"neck": 0.5}, ConfigError, "mapping"),
    ("yolov7-tiny", {"neck": {"widht": 0.5}}, ConfigError, "'width'"),
    ("yolov7-tiny", {"neck": {"width": -1}}, ConfigError, "greater than 0"),
    ("yolov7-tiny", {"backbone": {"activation": "gelu"}}, ConfigError, "backbone.activation = 'gelu'"),
    ("yolov7-tiny", {"backbone": "revcol-nan"}, UnknownModelError, "revcol-nano"),
    ("yolov7-tiny", {"head": {"anchors_px": [[[8, 8]]]}}, ConfigError, "3 equally long sets"),
]


@pytest.mark.parametrize(("name", "options", "error", "says"), WRONG)
def test_wrong_names_and_options_say_what_is_right(
    name: str, options: dict[str, Any], error: type[CloverleafError], says: str
) -> None:
    with pytest.raises(error, match=says):
        cloverleaf.create_model(name, **options)


def test_spec_survives_json_and_is_strict() -> None:
    spec = find_spec("yolov7-tiny").with_overrides({"head": {"implicit": False}, "neck": {"width": 0.75}}).as_fused()
    values = json.loads(json.dumps(spec.to_dict()))
    assert DetectorSpec.from_dict(values) == spec and spec.form == "fused"
    for broken, says in (
        ({**values, "nmae": 1}, "'name'"),
        ({k: v for k, v in values.items() if k != "neck"}, "neck is missing"),
        ({**values, "neck": {**values["neck"], "type": "pan"}}, "no neck 'pan'"),
        ({**values, "head": {**values["head"], "implicit": True}}, "fused detector cannot"),
    ):
        with pytest.raises(ConfigError, match=says):
            DetectorSpec.from_dict(broken)


def test_same_seed_gives_the_same_model() -> None:
    torch.manual_seed(3)
    first = cloverleaf.create_model("yolov7-tiny", num_classes=2)
    torch.manual_seed(3)
    second = cloverleaf.create_model("yolov7-tiny", num_classes=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 64, 64), torch.zeros(1, 64, 64, 3), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)]
)
def test_images_of_another_layout_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"\(B, 3, H, W\)"):
        cloverleaf.create_model("yolov7-tiny", num_classes=1)(images)


def test_decode_checks_the_size() -> None:
    model = cloverleaf.create_model("yolov7-tiny", num_classes=1).eval()
    with torch.no_grad():
        raw = model(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ConfigError, match="size"):
        model.decode(raw, (96, 64))


def test_fusing_twice() -> None:
    fused = cloverleaf.create_model("yolov7-tiny", num_classes=1).fused()
    with pytest.raises(ConfigError, match="fused already"):
        fused.fused()
