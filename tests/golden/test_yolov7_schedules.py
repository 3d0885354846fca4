"""Schedules and the moving average against the published training script."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import nn

from cloverleaf.training.config import OptimizerConfig, ScheduleConfig
from cloverleaf.training.ema import ModelEma, ema_decay
from cloverleaf.training.schedule import Schedule


def schedule_of(numbers: dict[str, np.ndarray], case: str) -> Schedule:
    lr, final, momentum, warmup, warmup_momentum, warmup_bias = numbers[f"{case}/hyp"]
    epochs, batches, batch, _ = numbers[f"{case}/epochs_nb_batch_nw"]
    config = ScheduleConfig(
        kind="linear" if numbers[f"{case}/linear"] else "cosine",
        final_factor=final, warmup_epochs=warmup, warmup_momentum=warmup_momentum, warmup_bias_lr=warmup_bias,
    )  # fmt: skip
    return Schedule(config, OptimizerConfig(lr=lr, momentum=momentum), int(epochs), int(batches), int(batch))


@pytest.mark.parametrize("case", ["p5", "tiny", "linear"])
def test_schedule(golden, case: str) -> None:
    numbers = golden("yolov7/schedules")
    schedule = schedule_of(numbers, case)
    assert schedule.warmup_iterations == numbers[f"{case}/epochs_nb_batch_nw"][3]
    for iteration, *expected in numbers[f"{case}/series"]:
        plan = schedule.at(int(iteration))
        np.testing.assert_allclose(
            [*plan.lr, plan.momentum, plan.accumulate, plan.step], expected, rtol=1e-6, atol=1e-12
        )
    factors = [schedule.factor(epoch) for epoch in range(schedule.epochs)]
    np.testing.assert_allclose(factors, numbers[f"{case}/epoch_factor"], rtol=1e-9)
    steps = sum(schedule.at(i).step for i in range(schedule.epochs * schedule.batches_per_epoch))
    assert steps == numbers[f"{case}/optimizer_steps"]


def test_ema_decay(golden) -> None:
    numbers = golden("yolov7/schedules")
    decays = [ema_decay(int(u), 0.9999, 2000) for u in numbers["ema.updates"]]
    np.testing.assert_allclose(decays, numbers["ema.decay"], rtol=1e-6)


def test_ema_weights(golden) -> None:
    def weight(i: int) -> torch.Tensor:
        rng = np.random.RandomState(zlib.crc32(f"ema.w.{i}".encode()))
        return torch.from_numpy(rng.standard_normal((2, 3)).astype(np.float32))

    model = nn.Linear(3, 2, bias=False)
    model.weight.data = weight(0)
    ema = ModelEma(model)
    for i, expected in enumerate(golden("yolov7/schedules")["ema.weight_after_each_update"], start=1):
        model.weight.data = weight(i)
        ema.update(model)
        torch.testing.assert_close(ema.model.weight, torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
