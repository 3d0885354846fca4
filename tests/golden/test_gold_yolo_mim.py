"""Masked pre-training against numbers computed from the published equations, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.convert import sparsify
from cloverleaf.layers.style import Style
from cloverleaf.losses.masked_patches import masked_patch_loss, patch_errors
from cloverleaf.pretraining.optim import build_lamb
from cloverleaf.pretraining.schedule import PretrainSchedule
from golden.compare import assert_matches
from golden.fill import fill

Golden = Callable[[str], dict[str, np.ndarray]]
TOLERANCE = 1e-5
STYLE = Style(activation="relu")


@pytest.fixture(scope="module")
def units(golden: Golden) -> dict[str, np.ndarray]:
    return golden("gold_yolo/mim_units")


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(10 * fill(name, (int(np.prod(shape)),), 1.0)).double().reshape(shape)


def fill_module(module: nn.Module, prefix: str, names: Mapping[str, str] | None = None) -> nn.Module:
    """Fill every tensor by its published name: our name with the given beginnings replaced."""
    state = {}
    for own, value in module.state_dict().items():
        published = own
        for ours, theirs in (names or {}).items():
            published = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", published)
        filled = (
            value if value.dtype == torch.int64 else torch.from_numpy(fill(f"{prefix}.{published}", value.shape, 1))
        )
        state[own] = filled
    module.load_state_dict(state)
    return module.double()


def sparse(module: nn.Module, active: Tensor) -> nn.Module:
    cells = VisibleCells()
    cells.show(active)
    return sparsify(nn.Sequential(module), cells)


def masked_input(units: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    batch, narrow, _, height, width = units["dims"].tolist()
    active = torch.from_numpy(units["active"])
    mask = active.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return noise("spk.x", (batch, narrow, height, width)) * mask, active


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("conv3s1", nn.Conv2d(6, 10, 3, 1, 1, bias=False)),
        ("conv3s2", nn.Conv2d(6, 10, 3, 2, 1)),
        ("conv1", nn.Conv2d(6, 10, 1)),
        ("maxpool5", nn.MaxPool2d(5, 1, 2)),
    ],
)
def test_operators(units: dict[str, np.ndarray], key: str, layer: nn.Module) -> None:
    x, active = masked_input(units)
    assert_matches(sparse(fill_module(layer, f"spk.{key}"), active)(x), units, key, TOLERANCE)


def test_batchnorm(units: dict[str, np.ndarray]) -> None:
    _, active = masked_input(units)
    dense = 2 * noise("spk.xb", (2, 6, 32, 48)) + 0.7
    norm = sparse(fill_module(nn.BatchNorm2d(6, 1e-3, 0.03), "spk.bn"), active)
    assert_matches(norm.eval()(dense), units, "bn.eval", TOLERANCE)
    assert_matches(norm.train()(dense), units, "bn.train", TOLERANCE)
    for name in ("running_mean", "running_var"):
        assert_matches(getattr(norm[0], name), units, f"bn.{name}_after", TOLERANCE)


REP = {"identity_norm": "rbr_identity", "dense": "rbr_dense.conv", "dense_norm": "rbr_dense.bn",
       "point": "rbr_1x1.conv", "point_norm": "rbr_1x1.bn"}  # fmt: skip


@pytest.mark.parametrize(("key", "width", "stride"), [("repvgg", 6, 1), ("repvgg_s2", 10, 2)])
def test_blocks(units: dict[str, np.ndarray], key: str, width: int, stride: int) -> None:
    x, active = masked_input(units)
    block = sparse(fill_module(RepConv(6, width, stride, style=STYLE), f"spk.{key}", REP), active)
    assert_matches(block.eval()(x), units, f"{key}.eval", TOLERANCE)
    assert_matches(block.train()(x), units, f"{key}.train", TOLERANCE)


def test_patch_loss(units: dict[str, np.ndarray]) -> None:
    active = torch.from_numpy(units["active"])
    errors = patch_errors(noise("spk.img", (2, 3, 64, 96)), noise("spk.rec", (2, 3, 64, 96)), 32)
    assert_matches(errors.flatten(1), units, "loss.patch", TOLERANCE)
    assert float(masked_patch_loss(errors, active)) == pytest.approx(float(units["loss"]), rel=TOLERANCE)


def test_schedule(golden: Golden) -> None:
    numbers = golden("gold_yolo/mim_schedule")
    lr, start, end, warmup, total = numbers["hyper"].tolist()
    schedule = PretrainSchedule(lr, start, end, int(warmup), int(total))
    steps = numbers["it"].tolist()
    assert [schedule.lr_at(t) for t in steps] == pytest.approx(numbers["lr"].tolist(), rel=1e-12)
    assert [schedule.weight_decay_at(t) for t in steps] == pytest.approx(numbers["wd"].tolist(), rel=1e-12)


def test_lamb(golden: Golden) -> None:
    """timm's LAMB is the published one: the clipping inside, no trust ratio without decay."""
    numbers = golden("gold_yolo/lamb")
    lr, beta1, beta2, eps, decay, clip = numbers["hyper"].tolist()
    model = nn.Linear(4, 5).double()
    model.weight.data, model.bias.data = torch.from_numpy(numbers["w0"]), torch.from_numpy(numbers["b0"])
    optimizer = build_lamb(model, lr=lr, weight_decay=decay, betas=(beta1, beta2), eps=eps, clip_norm=clip)
    for step in range(1, 7):
        model.weight.grad, model.bias.grad = (torch.from_numpy(numbers[f"g{name}{step}"]) for name in "wb")
        optimizer.step()
        assert_matches(model.weight, numbers, f"w{step}", 1e-12)
        assert_matches(model.bias, numbers, f"b{step}", 1e-12)
