"""Running statistics forget the mean 0 and the variance 1 that they start from."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from cloverleaf.training.callbacks.norm_start import NormStartCallback


def _feed(model: nn.Sequential, batches: list[torch.Tensor], callback: NormStartCallback | None = None) -> None:
    """Train for some iterations of a new process, which has a callback of its own."""
    callback = callback or NormStartCallback()
    module = SimpleNamespace(model=model)
    callback.on_train_start(cast(Any, None), module)
    for number, batch in enumerate(batches):
        callback.on_train_batch_start(cast(Any, None), module, None, number)
        model(batch)
    callback.on_train_end(cast(Any, None), module)


@pytest.fixture
def batches() -> list[torch.Tensor]:
    """Dark images: a variance far below 1."""
    generator = torch.Generator().manual_seed(0)
    return [0.05 * torch.rand(4, 3, 8, 8, generator=generator) for _ in range(40)]


def test_young_statistics_are_means_of_the_batches_seen(batches: list[torch.Tensor]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.03))
    _feed(model, batches[:10])
    variances = torch.stack([batch.var((0, 2, 3), unbiased=True) for batch in batches[:10]]).mean(0)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches[:10]]).mean(0)
    norm = cast(nn.BatchNorm2d, model[0])
    torch.testing.assert_close(norm.running_var, variances)
    torch.testing.assert_close(norm.running_mean, means)
    assert norm.momentum == 0.03


def test_a_resumed_run_goes_on_and_old_statistics_move_by_the_momentum(batches: list[torch.Tensor]) -> None:
    whole = nn.Sequential(nn.BatchNorm2d(3, momentum=0.03))
    broken = copy.deepcopy(whole)
    _feed(whole, batches)
    _feed(broken, batches[:7])
    resumed = nn.Sequential(nn.BatchNorm2d(3, momentum=0.03))
    resumed.load_state_dict(broken.state_dict())
    _feed(resumed, batches[7:])
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    plain = copy.deepcopy(whole)
    plain(batches[0])
    _feed(whole, batches[:1])
    assert torch.equal(cast(torch.Tensor, whole[0].running_var), cast(torch.Tensor, plain[0].running_var))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ],
    ids=["cumulative", "none kept", "of instances"],
)
def test_other_norms_are_left_alone(norm: nn.Module, batches: list[torch.Tensor]) -> None:
    model, plain = nn.Sequential(norm), nn.Sequential(copy.deepcopy(norm))
    _feed(model, batches[:3])
    for batch in batches[:3]:
        plain(batch)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_statistics_that_came_with_weights_count_though_not_counted(
    batches: list[torch.Tensor],
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.03))
    norm = cast(nn.BatchNorm2d, model[0])
    cast(torch.Tensor, norm.running_var).fill_(0.5)
    _feed(model, batches[:1])
    assert cast(torch.Tensor, norm.running_var).min() > 0.48
