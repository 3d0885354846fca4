"""YOLOR's schedule, its second phase, weight decay and moving average against the published training script."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cloverleaf.structures import ByEpoch
from cloverleaf.training.config import OptimizerConfig, ScheduleConfig
from cloverleaf.training.ema import ModelEma, ema_decay
from cloverleaf.training.schedule import Schedule

SCRATCH = ScheduleConfig(final_factor=0.2, warmup_epochs=3.0)


@pytest.mark.parametrize("case", ["a", "b"])
def test_schedule_from_scratch(golden, case: str) -> None:
    numbers = golden("yolor/schedule")
    epochs, batches, batch, _ = numbers[f"{case}.config"].tolist()
    schedule = Schedule(SCRATCH, OptimizerConfig(lr=0.01), epochs, batches, batch)
    assert schedule.warmup_iterations == numbers[f"{case}.nw"]
    assert schedule.weight_decay == pytest.approx(float(numbers[f"{case}.weight_decay"]), rel=1e-9)
    steps = np.cumsum([schedule.at(i).step for i in range(epochs * batches)])
    for epoch, iteration, *expected in numbers[f"{case}.rows"].tolist():
        plan = schedule.at(int(iteration))
        assert int(iteration) // batches == epoch
        found = [*plan.lr, plan.momentum, plan.accumulate, steps[int(iteration)]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_schedule_of_the_second_phase(golden) -> None:
    """A run of 450 epochs resumed from one of 300: its first epoch has the old run's next rate, then the new curve."""
    numbers = golden("yolor/schedule")
    epochs, batches, batch, start = numbers["finetune.config"].tolist()
    first = ScheduleConfig(final_factor=0.2, warmup_epochs=3.0, span="phase")
    # the published run stops after 299 of its 300 epochs: the curve ends at 300, one epoch after the phase
    early = Schedule(SCRATCH, OptimizerConfig(lr=0.01), 300, batches, batch)
    assert early.at(start * batches).lr[1] == pytest.approx(float(numbers["finetune.lr_from_checkpoint"]), abs=1e-9)
    whole = Schedule(
        SCRATCH, OptimizerConfig(lr=0.01), epochs, batches, batch, phases=ByEpoch((start, epochs), (first, SCRATCH))
    )
    steps = np.cumsum([whole.at(i).step for i in range(start * batches, epochs * batches)])
    for epoch, iteration, *expected in numbers["finetune.rows"].tolist():
        plan = (early if epoch == start else whole).at(int(iteration))
        found = [*plan.lr, plan.momentum, plan.accumulate, steps[int(iteration) - start * batches]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    # ours, of 300 whole epochs: the first epoch of the second phase likewise goes on with the first one's curve
    ours = Schedule(SCRATCH, OptimizerConfig(lr=0.01), epochs, 1, 64, phases=ByEpoch((1300, 1450), (first, SCRATCH)))
    assert ours.at(1300).lr[1] == 0.01 * Schedule(SCRATCH, OptimizerConfig(), 1300, 1, 64).factor(1299)
    assert ours.at(1301).lr[1] == 0.01 * Schedule(SCRATCH, OptimizerConfig(), epochs, 1, 64).factor(1300)


def test_moving_average(golden) -> None:
    numbers = golden("yolor/schedule")
    found = [ema_decay(int(updates), 0.9999, 2000.0) for updates in numbers["ema.updates"]]
    np.testing.assert_allclose(found, numbers["ema.decay"], rtol=0, atol=1e-9)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).view(2, 3))
        model.bias.zero_()
        ema = ModelEma(model)
        for expected in numbers["ema.trace"]:
            model.weight += 1
            model.bias += 0.5
            ema.update(model)
            averaged = torch.cat([value.flatten() for value in ema.model.state_dict().values()])
            np.testing.assert_allclose(averaged, expected, rtol=1e-6, atol=1e-6)
