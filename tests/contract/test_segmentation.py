"""What every model for instances or pixels must do, in narrow forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cloverleaf.deploy.fuse import fuse
from cloverleaf.errors import ConfigError
from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import MODELS, create_model, empty_detector, find_spec, list_models
from cloverleaf.models.cost import measure
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.structures import Instances, PixelOutput, RegionOutput, SemanticOutput
from cloverleaf.weights import load, save
from toy_shapes import toy_shapes

SIZE = 128
NECKS = {
    "fpn": {"width": 32},
    "none": {},
    "gather-distribute": {"finest": 4, "low_channels": (16, 16, 32), "high_channels": (32, 32, 32), "depth": 1},
}
REGIONS = {"representation": 64, "mask_width": 16, "mask_layers": 1, "proposals": 50, "train_proposals": 50}
HEADS = {
    "mask-rcnn": REGIONS,
    "point-rend": {"coarse_width": 32, "point_width": 32},
    "cascade-mask-rcnn": {**REGIONS, "box_layers": 1, "box_width": 16},
    "uper-net": {"width": 32, "auxiliary_width": 16},
}
BACKBONES = {"timm/resnet10t": {}, "revcol-pico": {"columns": 2, "channels": (8, 16, 24, 32)}}
NAMES = [
    *(f"timm/resnet10t+{neck}+{head}" for neck in ("fpn", "gather-distribute") for head in ("mask-rcnn", "point-rend")),
    "timm/resnet10t+none+uper-net",
    "revcol-pico+fpn+cascade-mask-rcnn",
    "revcol-pico+none+uper-net",
]
PUBLISHED = [name for name in list_models() if MODELS[name].spec.task in ("instance", "semantic")]


def narrow(name: str) -> Detector:
    """With spread statistics: fresh norms hide mistakes in folding, and some of timm's start at 0."""
    torch.manual_seed(0)
    backbone, neck, head = name.split("+")
    model = create_model(name, num_classes=3, backbone=BACKBONES[backbone], neck=NECKS[neck], head=HEADS[head])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 1.5),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                tensor.data.uniform_(low, high)
    return model


def tensors(raw: RegionOutput | SemanticOutput | PixelOutput) -> list[torch.Tensor]:
    if isinstance(raw, PixelOutput):
        return [raw.logits]
    return [*raw.maps, *raw.objectness, *raw.deltas] if isinstance(raw, RegionOutput) else [raw.coarse, raw.fine]


def results(model: Detector, images: torch.Tensor) -> list[torch.Tensor]:
    """Raw output, and what the head makes of it."""
    raw = model(images)
    if model.task == "semantic":
        return [*tensors(raw), model.head.segment(raw, (SIZE, SIZE))]
    found = model.head.instances(raw, (SIZE, SIZE), max_detections=5)
    return [*tensors(raw), *(field for x in found for field in (x.boxes_xyxy, x.scores, x.masks))]


@pytest.mark.parametrize("name", NAMES)
def test_one_output_in_both_modes_and_a_gradient_everywhere(name: str) -> None:
    model = narrow(name).train()
    images, targets = toy_shapes(2, SIZE)
    raw = model(images)
    build_criterion(model, LossConfig(), image_size=SIZE)(raw, targets, (SIZE, SIZE)).total.backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle, f"no gradient: {idle}"
    with torch.no_grad():
        evaluated = model.eval()(images)
        if model.task == "instance":
            found = model.head.instances(evaluated, (SIZE, SIZE), confidence=0.0, max_detections=7)
            assert len(found) == 2 and all(isinstance(x, Instances) and len(x) <= 7 for x in found)
        else:
            assert model.head.segment(evaluated, (SIZE, SIZE)).shape == (2, 3, SIZE, SIZE)
    assert (
        type(evaluated)
        is type(raw)
        in {"instance": (RegionOutput,), "semantic": (SemanticOutput, PixelOutput)}[model.task]
    )
    assert [x.shape for x in tensors(evaluated)] == [x.shape for x in tensors(raw)]
    with pytest.raises(ConfigError, match="--task"):
        model.decode(evaluated, (SIZE, SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_fused_and_saved_forms_are_equal(name: str, tmp_path: Path) -> None:
    model = narrow(name).eval()
    images = toy_shapes(2, SIZE)[0]
    fused = fuse(model)
    for original, path in ((model, tmp_path / "model.safetensors"), (fused, tmp_path / "fused.safetensors")):
        save(original, path)
        loaded = load(path)
        assert loaded.spec == original.spec and loaded.task == original.task
        with torch.no_grad():
            for ours, read in zip(results(original, images), results(loaded, images), strict=True):
                assert torch.equal(ours, read)
    with torch.no_grad():
        for ours, folded in zip(results(model, images), results(fused, images), strict=True):
            assert (ours - folded).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.head.modules())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_forms(name: str) -> None:
    spec = MODELS[name].spec
    assert DetectorSpec.from_dict(spec.to_dict()) == spec
    model = empty_detector(spec)
    assert model.strides == (4, 8, 16, 32) and model.max_stride == 32
    cost = measure(spec, (512, 512))
    assert cost.params == sum(p.numel() for p in model.parameters())
    if spec.task == "instance":
        assert model.head.proposal_strides == (4, 8, 16, 32, 64)


def test_the_cost_of_gather_and_distribute_follows_the_published_frame_rates() -> None:
    """Mask R-CNN: 21.6 against 18.7 frames per second (arXiv 2309.11331): 16 % more time."""
    fpn, gd = (measure(MODELS[f"mask-rcnn-resnet50-{neck}"].spec, (640, 640)).flops for neck in ("fpn", "gd"))
    assert gd / fpn == pytest.approx(21.6 / 18.7, abs=0.05)


@pytest.mark.parametrize(
    ("name", "classes", "params", "operations"),
    [
        ("revcol-tiny+fpn+cascade-mask-rcnn", 80, 88, None),
        ("revcol-small+fpn+cascade-mask-rcnn", 80, 118, None),
        ("revcol-tiny+none+uper-net", 150, 60, 937),
        ("revcol-small+none+uper-net", 150, 90, 1031),
    ],
)
def test_sizes_published_with_revcol(name: str, classes: int, params: int, operations: int | None) -> None:
    """Millions, and billions of multiply-adds at 512 x 2048, which say that every stage has a head for masks."""
    cost = measure(replace(find_spec(name), num_classes=classes), (512, 2048 if operations else 512))
    assert round(cost.params / 1e6) == params
    assert operations is None or cost.flops / 2e9 == pytest.approx(operations, rel=0.003)
