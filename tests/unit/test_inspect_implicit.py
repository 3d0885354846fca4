"""What `inspect` says of implicit knowledge: its meaning in pixels, what it does to features, and when it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cloverleaf.errors import ConfigError
from cloverleaf.inspection import InspectOptions, inspect
from cloverleaf.inspection.boxes_at_rest import boxes_at_rest, mirrored_anchors
from cloverleaf.inspection.knowledge import find_knowledge
from cloverleaf.inspection.output_names import output_names
from cloverleaf.models.catalog import create_model
from cloverleaf.models.detector import Detector
from cloverleaf.ops.similarity import effective_dimension, kernel_alignment, linear_cka

NARROW: dict[str, Any] = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}, "head": {"width": 0.125}}
IMPLICIT = InspectOptions(only=("implicit",))


def tiny(**head: Any) -> Detector:
    torch.manual_seed(0)
    model = create_model("yolov7-tiny", num_classes=2, **{**NARROW, "head": {**NARROW["head"], **head}}).eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_var.uniform_(0.05, 0.2)  # so that signals do not fade
        for one in find_knowledge(model):
            value = model.get_submodule(one.path).value
            value.copy_(float(one.operator == "multiply") + torch.randn_like(value))  # far from where it starts
    return model


def test_boxes_where_features_are_zero() -> None:
    """They are what the head decodes when nothing comes out of its stem, with implicit knowledge and without."""
    model = tiny()
    for index, (level, found) in enumerate(zip(model.head.levels, boxes_at_rest(model.head), strict=True)):
        nothing = torch.zeros(1, level.project.in_channels, 1, 1)
        for raw, boxes in (
            (level.multiply(level.project(level.add(nothing))), found.together), (level.project(nothing), found.alone)
        ):  # fmt: skip
            y = raw.view(3, -1).sigmoid().detach().numpy()
            np.testing.assert_allclose(boxes[:, :2], (2 * y[:, :2] - 1) * found.stride, atol=1e-4)
            sides = (2 * y[:, 2:4]) ** 2 * model.anchors_px[index].numpy()
            np.testing.assert_allclose(boxes[:, 2:], sides, rtol=1e-4)


def test_factors_that_follow_their_anchors_are_found() -> None:
    model = tiny()
    with torch.no_grad():
        for level, anchors in zip(model.head.levels, model.anchors_px, strict=True):
            level.multiply.value.view(3, -1)[:, 2] = anchors[:, 0].log()
    named = [(one, output_names(model, one)) for one in find_knowledge(model)]
    refined = [(one, names) for one, names in named if names is not None]
    assert [one.operator for one, _ in refined] == ["multiply"] * 3 and refined[0][1].rows[1] == "16 x 30 px"
    assert refined[0][1].columns == ("x", "y", "w", "h", "obj", "class 0", "class 1")
    w, h = mirrored_anchors([one.values.reshape(3, -1) for one, _ in refined], [names for _, names in refined])
    assert w.rho == pytest.approx(1) and w.p < 0.01 and w.anchors == 9
    assert abs(h.rho) < 0.9


def test_similarity_that_knows_shifts() -> None:
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).double()
    shifted = x + torch.tensor([3.0, 0, 0, 0, 0])
    assert float(linear_cka(x, shifted)) == pytest.approx(1)
    assert float(kernel_alignment(x, 2 * x)) == pytest.approx(1) and float(kernel_alignment(x, shifted)) < 0.8
    line = torch.arange(6.0)[:, None] * torch.ones(1, 9)
    assert float(effective_dimension(line)) == pytest.approx(1)
    assert float(effective_dimension(torch.eye(4).repeat(3, 1))) == pytest.approx(3)
    assert np.isnan(float(effective_dimension(torch.ones(4, 2))))


def test_what_is_written(tmp_path: Path) -> None:
    """An addition moves clouds by its own length and leaves their shape alone."""
    model = tiny()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    options = InspectOptions(only=("implicit",), image_size=64)
    result = inspect(model, [tmp_path / "a.png"], tmp_path / "out", options)
    facts = json.loads((tmp_path / "out" / "inspect.json").read_text("utf-8"))["implicit"]
    assert set(facts["places"]) == set(facts["alignment"]) == {"head.align", "head.refine"}
    assert sorted(path.name for path in result.findings["implicit"].pictures) == [
        "implicit_boxes.png", "implicit_head_align.png", "implicit_head_align_features.png", "implicit_head_refine.png",
        "implicit_head_refine_features.png",
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in result.findings["implicit"].pictures)
    assert [one["stride"] for one in facts["places"]["head.align"]["modules"]] == [8, 16, 32]
    for level, module in zip(facts["alignment"]["head.align"]["levels"], model.head.levels, strict=True):
        before, after = level["before"], level["after"]
        assert after["std"] == pytest.approx(before["std"], rel=1e-5)
        assert after["effective_dimension"] == pytest.approx(before["effective_dimension"], rel=1e-4)
        radius = before["std"] * before["channels"] ** 0.5
        assert level["centroid_moves"] == pytest.approx(float(module.add.value.detach().norm()) / radius, rel=1e-4)
    between = facts["alignment"]["head.align"]["between_levels"]
    np.testing.assert_allclose(between["before"]["cka"], between["after"]["cka"], atol=1e-4)
    assert np.abs(np.subtract(between["before"]["kernel_alignment"], between["after"]["kernel_alignment"])).max() > 1e-3


def test_vectors_need_no_images(tmp_path: Path) -> None:
    neck = {"width": 8, "implicit": {"align": {"operator": "add", "modelling": "network"}}}
    model = create_model("elan-tiny+fpn+dense", num_classes=2, backbone={"width": 0.125}, neck=neck)
    result = inspect(model, output=tmp_path / "out")
    assert set(result.findings) == {"implicit"} and set(result.left_out) == {"inversion", "decoder", "similarity"}
    assert all("--images" in reason for reason in result.left_out.values())
    found = result.findings["implicit"]
    assert "alignment" not in found.facts and "Without --images" in found.notes[-1]
    assert [path.name for path in found.pictures] == ["implicit_neck_align.png", "implicit_neck_align_parts.png"]
    module = found.facts["places"]["neck.align"]["modules"][0]
    assert module["parts"] == {"prior z": [16], "weight W": [8, 16], "bias b": [8]} and len(module["values"]) == 8


def test_other_tasks_say_nothing_of_boxes(tmp_path: Path) -> None:
    head = {"boxes": {"implicit": False}, "implicit": {"boxes": "none", "tags": "add"}}
    model = create_model("csp-tiny+c2f-pan+multi", num_classes=2, backbone={"width": 0.125}, head=head)
    found = inspect(model, output=tmp_path / "out").findings["implicit"]
    assert set(found.facts) == {"places"} and [path.name for path in found.pictures] == ["implicit_head_task.png"]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("fused", {}, "is fused: implicit knowledge, if it had any, is folded"),
        ("deployed", {}, "has no implicit knowledge"),
        ("without", {}, "has no implicit knowledge"),
        ("training", {"only": ("implicit", "similarity")}, "similarity is not possible here: it looks at images"),
        ("training", {"image_size": 256}, "--image-size has no effect: no images"),
        ("training", {"max_images": 3}, "--max-images has no effect"),
        ("training", {"only": None, "fit_decoder": 3}, "decoder is not possible here: it looks at images"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path: Path, form: str, options: dict[str, Any], message: str) -> None:
    model = tiny(implicit=form != "without")
    if form in ("fused", "deployed"):
        model = getattr(model, form)()
    with pytest.raises(ConfigError) as error:
        inspect(model, output=tmp_path / "out", options=InspectOptions(**{"only": ("implicit",), **options}))
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()
