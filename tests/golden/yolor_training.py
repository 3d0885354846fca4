"""One published training step of a model of YOLOR, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.losses.config import LossConfig
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.weights import export_state_dict
from golden.compare import assert_matches
from golden.fill import image
from golden.test_yolov7_models import published_decoding
from golden.yolor_cases import targets_of

Numbers = dict[str, np.ndarray]
Names = Callable[[Iterable[str]], Mapping[str, str]]  # our keys -> ours to the published ones


def golden_image(numbers: Numbers) -> Tensor:
    """The images of the case."""
    batch, _, height, width, seed = (int(n) for n in numbers["input"])
    return torch.from_numpy(image(height, width, batch, seed))


def check_step(model: Detector, numbers: Numbers, loss: LossConfig, *, eps: float, names: Names) -> None:
    """In float64: raw outputs, statistics, loss and gradients; then evaluation with those statistics."""
    model = model.double().train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, 0.03)}
    before = {key: value.clone() for key, value in export_state_dict(model).items() if ".running_" in key}
    for norm in norms:  # keeps the statistics of the batch, of which the published ones took 3 %
        norm.momentum = 1.0
    images = golden_image(numbers).double()
    raw = model(images)
    for i, level in enumerate(raw.levels):
        assert_matches(level, numbers, f"train.raw.{i}", 1e-5)
    state = export_state_dict(model)
    after = {key.removeprefix("train.after."): v for key, v in numbers.items() if key.startswith("train.after.")}
    assert len(after) == 12
    for key, value in after.items():
        assert_matches((0.97 * before[key] + 0.03 * state[key])[:64], {key: value}, key, 1e-5)
    _check_loss_and_gradients(model, raw, numbers, loss, names)
    model.eval()
    with torch.no_grad():
        raw = model(images[:1])
    for i, level in enumerate(raw.levels):
        assert_matches(level, numbers, f"cal.raw.{i}", 1e-5)
    decoded = published_decoding(model.decode(raw, tuple(images.shape[2:]))[0], raw)
    assert_matches(decoded, numbers, "cal.decoded", 1e-5)


def _check_loss_and_gradients(model: Detector, raw: Any, numbers: Numbers, loss: LossConfig, names: Names) -> None:
    """The loss is computed in float32, from there back everything in float64."""
    batch, _, height, width, _ = (int(n) for n in numbers["input"])
    criterion = build_criterion(model, loss, image_size=max(height, width))
    output = criterion(raw, targets_of(numbers["loss.targets"], (height, width), batch), (height, width))
    items = [output.items[key].item() for key in ("box", "obj", "cls")]
    np.testing.assert_allclose([*items, sum(items)], numbers["loss.items_box_obj_cls_total"], rtol=1e-5)
    np.testing.assert_allclose(output.total.item(), numbers["loss.total"][0], rtol=1e-5)
    output.total.backward()
    parameters = dict(model.named_parameters())
    gradients = {theirs: parameters[ours].grad for ours, theirs in names(parameters).items()}
    stored = [key.removeprefix("grad.") for key in numbers if key.startswith("grad.") and key.endswith("implicit")]
    assert len(stored) == 2 * len(raw.levels)
    for key in stored:
        _assert_near(gradients[key].flatten(), numbers[f"grad.{key}"])
    [key] = [key.removesuffix(".index") for key in numbers if key.startswith("grad.") and key.endswith("weight.index")]
    _assert_near(gradients[key.removeprefix("grad.")].flatten()[numbers[f"{key}.index"]], numbers[f"{key}.value"])
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert norm == pytest.approx(float(numbers["grad.global_l2"]), rel=1e-3)


def _assert_near(gradient: Tensor, expected: np.ndarray) -> None:
    assert np.abs(gradient.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
