"""The published recipes' schedules, by which Gold-YOLO is trained, against the published numbers."""

import numpy as np
import pytest

from cloverleaf.recipes.catalog import get_recipe
from cloverleaf.training.config import OptimizerConfig
from cloverleaf.training.ema import ema_decay
from cloverleaf.training.schedule import Schedule

EPOCHS = 300


def schedule_of(recipe: str, hyper) -> Schedule:
    """Of the recipe, with the learning rate, batches per epoch and batch size of a golden case."""
    config = get_recipe(recipe)
    optimizer = OptimizerConfig(lr=float(hyper[0]), weight_decay=config.optimizer.weight_decay)
    return Schedule(config.schedule, optimizer, config.epochs, int(hyper[3]), int(hyper[4]))


@pytest.mark.parametrize(
    ("case", "recipe"), [("n_b128", "gold-yolo-n"), ("s_b256", "gold-yolo-s"), ("tiny_b16", "gold-yolo-m-distill")]
)
def test_warm_up_and_weight_decay(golden, case, recipe):
    numbers = golden("gold_yolo/schedules")
    hyper = numbers[f"{case}.hyper"]
    schedule = schedule_of(recipe, hyper)
    assert schedule.warmup_iterations == hyper[2]
    assert schedule.weight_decay == pytest.approx(hyper[1])
    for step, epoch, *expected in numbers[f"{case}.warm"]:
        assert int(step) // schedule.batches_per_epoch == epoch
        plan = schedule.at(int(step))
        np.testing.assert_allclose([*plan.lr, plan.momentum, plan.accumulate], expected, rtol=1e-6, atol=1e-9)
    if case != "tiny_b16":  # there the batch and with it the rate differ from the published ones
        config = get_recipe(recipe)
        assert (config.optimizer.lr, config.data.batch_size) == (hyper[0], hyper[4])


def test_learning_rate_of_every_epoch(golden):
    schedule = schedule_of("gold-yolo-s", (0.01, 0, 0, 1000, 256))
    factors = [schedule.at(epoch * 1000 + 999).lr[1] / 0.01 for epoch in range(EPOCHS)]
    np.testing.assert_allclose(factors[4:], golden("gold_yolo/schedules")["lf"][4:], rtol=1e-9)


def test_ema_decay(golden):
    numbers, config = golden("gold_yolo/schedules"), get_recipe("gold-yolo-n").ema
    decays = [ema_decay(int(updates), config.decay, config.ramp) for updates in numbers["ema.updates"]]
    np.testing.assert_allclose(decays, numbers["ema.decay"], rtol=1e-6)
