"""Supervised columns against the published numbers: what heads and decoders say, losses, gradients in both modes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cloverleaf.backbones.revcol.variants import PUBLISHED
from cloverleaf.heads.supervision import ColumnSupervisionSpec
from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import build_detector, empty_detector, find_spec
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.structures import SupervisedOutput, Targets
from golden.compare import assert_matches
from golden.fill import image
from golden.revcol_cases import SMALL, fill_module, published_names

CASES = {
    "small_config_inter_64x64": (replace(PUBLISHED["revcol-tiny"], drop_path=0.0, **SMALL), 10, 2),
    "small_config_inter_1001_64x64": (replace(PUBLISHED["revcol-tiny"], drop_path=0.0, **SMALL), 1001, 2),
    "revcol_tiny_inter_64x64": (replace(PUBLISHED["revcol-tiny"], drop_path=0.0), 1000, 1),
}
PARAMETERS = {  # with 1000 and with 21841 classes
    "tiny": (33_063_984, 79_494_852),
    "small": (63_176_240, 109_607_108),
    "base": (141_694_960, 193_772_980),
    "large": (280_372_272, 371_077_188),
    "xlarge": (851_958_576, 1_005_203_844),
    "huge": (2_199_107_704, 2_433_000_700),
}
_DECODER, _STAGE = r"supervision\.decoders\.(\d)", r"supervision\.decoders\.(\d)\.stages\.(\d)"
_BLOCK = {"layer_scale": "gamma", "depthwise": "dwconv", "norm": "norm", "expand": "pwconv1", "project": "pwconv2"}
PUBLISHED_NAMES = {
    r"head\.norm": "cls_blocks.3.classifier.0",
    r"head\.linear": "cls_blocks.3.classifier.1",
    r"supervision\.heads\.(\d)\.norm": r"cls_blocks.\1.classifier.0",
    r"supervision\.heads\.(\d)\.linear": r"cls_blocks.\1.classifier.1",
    rf"{_DECODER}\.norm": r"decoder_blocks.\1.projback.0",
    rf"{_STAGE}\.project": r"decoder_blocks.\1.proj_layers.\2.0",
    rf"{_STAGE}\.norm": r"decoder_blocks.\1.proj_layers.\2.1",
    **{rf"{_STAGE}\.block\.{o}": rf"decoder_blocks.\1.normal_layers.\2.0.{t}" for o, t in _BLOCK.items()},
}


def names_of(model: Detector) -> dict[str, str]:
    """Ours -> published."""
    to_pixels = {rf"{_DECODER}\.to_pixels": rf"decoder_blocks.\1.projback.{int(model.num_classes > 1000)}"}
    names = published_names(model.spec.backbone, "backbone.")
    for ours in model.state_dict().keys() - names.keys():
        for pattern, theirs in {**PUBLISHED_NAMES, **to_pixels}.items():
            if re.fullmatch(rf"{pattern}(\.weight|\.bias|)", ours):
                names[ours] = re.sub(pattern, theirs, ours)
    return names


def supervised(case: str, memory: str, dtype: torch.dtype) -> tuple[Detector, Tensor]:
    """The filled model in training, which normalises its input as published, and the input."""
    backbone, classes, batch = CASES[case]
    spec = replace(
        find_spec("revcol-tiny+none+classify"), num_classes=classes,
        backbone=replace(backbone, memory=memory, normalize=True), supervision=ColumnSupervisionSpec(),
    )  # fmt: skip
    model = build_detector(spec)
    fill_module(model, names_of(model))
    return model.to(dtype).train(), torch.from_numpy(image(64, 64, batch)).to(dtype)


def loss_of(model: Detector, images: Tensor, numbers: dict[str, np.ndarray]) -> tuple[SupervisedOutput, object]:
    soft = torch.from_numpy(numbers["target"]).to(images)
    count, size_hw = len(soft), (images.shape[2], images.shape[3])
    rows = torch.arange(count)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(count, 4)
    targets = Targets(boxes, soft.argmax(1), rows, count, class_probs=soft)
    raw = model(images)
    return raw, build_criterion(model, LossConfig(), image_size=64)(raw, targets, size_hw)


def packed(numbers, field):
    """Name -> samples of its gradient."""
    bounds = numbers["grad.offset"]
    return {str(name): numbers[field][bounds[i] : bounds[i + 1]] for i, name in enumerate(numbers["grad.names"])}


@pytest.mark.parametrize("case", CASES)
def test_what_columns_say_and_what_it_costs(golden, case):
    numbers = golden(f"revcol/{case}")
    model, images = supervised(case, "plain", torch.float32)
    raw, loss = loss_of(model, images, numbers)
    said = [source.raw.logits for source in raw.auxiliary]
    for i, logits in enumerate([*said, raw.final.logits]):
        assert_matches(logits, numbers, f"cls{i}")
    for i, source in enumerate(raw.auxiliary):
        assert_matches(source.image, numbers, f"img{i}")
    np.testing.assert_allclose(loss.total.item(), numbers["loss.total"], rtol=1e-5)
    bce, ce = numbers["loss.bce"], numbers["loss.ce"]
    expected = {"cls": ce[-1], "aux": ce[:-1] @ [0.175, 0.35, 0.525], "rec": bce @ [3, 2, 1]}
    assert loss.items.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(loss.items[name].item(), value, rtol=1e-5)


@pytest.mark.parametrize(("memory", "dtype"), [("plain", "float64"), ("plain", "float32"), ("reversible", "float32")])
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("small")])
def test_gradients(golden, case, memory, dtype):
    numbers = golden(f"revcol/{case}")
    model, images = supervised(case, memory, getattr(torch, dtype))
    _, loss = loss_of(model, images, numbers)
    loss.total.backward()
    exact = dtype == "float64"
    np.testing.assert_allclose(loss.total.item(), numbers["loss.total"], rtol=1e-8 if exact else 1e-5)
    index, value = packed(numbers, "grad.index"), packed(numbers, "grad.value")
    largest = dict(zip(value, numbers["grad.absmax"], strict=True))
    found = {theirs: model.get_parameter(ours).grad for ours, theirs in names_of(model).items()}
    without_effect = {f"subnet0.alpha{k}" for k in range(4)}
    assert value.keys() - found.keys() == without_effect and not found.keys() - value.keys()
    for name, gradient in found.items():
        error = np.abs(gradient.numpy().ravel()[index[name]] - value[name]).max()
        assert error <= (1e-6 if exact else 1e-4) * largest[name], name


@pytest.mark.parametrize("size", PARAMETERS)
def test_published_numbers_of_parameters(size):
    """The published ones count scales of the first column, which have no effect and do not exist in ours."""
    for classes, published in zip((1000, 21841), PARAMETERS[size], strict=True):
        spec = find_spec(f"revcol-{size}+none+classify")
        spec = replace(spec, num_classes=classes, supervision=ColumnSupervisionSpec())
        own = sum(parameter.numel() for parameter in empty_detector(spec).parameters())
        assert own + sum(spec.backbone.channels) == published
