"""Recipes for instances and pixels: chosen by the model, and the published numbers where they are claimed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.criterion import build_criterion
from cloverleaf.recipes.catalog import choose_recipe, get_recipe
from cloverleaf.training.schedule import Schedule
from cloverleaf.training.tasks import check_options


@pytest.mark.parametrize(
    ("model", "num_images", "recipe"),
    [
        ("mask-rcnn-resnet50-gd", 300, "mask-rcnn"),
        ("timm/resnet18+fpn+mask-rcnn", 118_000, "mask-rcnn-1x"),
        ("revcol-pico+fpn+cascade-mask-rcnn", 300, "cascade-mask-rcnn"),
        ("cascade-mask-rcnn-revcol-tiny", 118_000, "cascade-mask-rcnn-3x"),
        ("timm/resnet18+none+uper-net", 300, "uper-net"),
        ("uper-net-revcol-nano", 20_000, "uper-net-160k"),
        ("point-rend-resnet50-fpn", 300, "point-rend"),
        ("elan-tiny+gather-distribute+point-rend", 118_000, "point-rend"),
    ],
)
def test_the_task_of_the_model_decides(model, num_images, recipe):
    name, reason = choose_recipe(model, num_images)
    assert name == recipe and reason
    config = get_recipe(name)
    assert config.recipe == recipe
    assert find_spec(config.model.name).task == find_spec(model).task == config.task


@pytest.mark.parametrize(
    "recipe", ["mask-rcnn", "mask-rcnn-1x", "point-rend", "cascade-mask-rcnn", "cascade-mask-rcnn-3x", "uper-net",
               "uper-net-160k"],
)  # fmt: skip
def test_no_option_is_without_effect(recipe):
    config = get_recipe(recipe)
    model = empty_detector(find_spec(config.model.name))
    build_criterion(model, config.loss, image_size=config.data.image_size)  # refuses such
    assert not config.assigner_warmup and not config.auto_anchor


def test_recipes_of_detectors_are_refused_before_work_starts():
    config = replace(get_recipe("small"), task="instance", model=get_recipe("mask-rcnn").model)
    with pytest.raises(ConfigError, match=r"assigner_warmup = 0\.4 has no effect"):
        check_options(config)


def test_published_schedule():
    """0.02 for the mean over 16 images, momentum 0.9, decay 1e-4, 12 epochs; gradients add up over images here."""
    config = get_recipe("mask-rcnn-1x")
    assert config.epochs == 12 and config.optimizer.momentum == 0.9
    for batch in (2, 16):
        schedule = Schedule(config.schedule, config.optimizer, config.epochs, 118_000 // batch, batch)
        plan = schedule.at(schedule.warmup_iterations + 1)
        assert plan.lr[1] * 16 == pytest.approx(0.02, rel=1e-3) and plan.accumulate * batch == 16
        assert schedule.weight_decay * plan.lr[1] == pytest.approx(1e-4 * 0.02, rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "images", "steps", "lr", "decay", "layer_decay", "warmup"),
    [
        ("cascade-mask-rcnn-3x", 117_266, 263_849, 2e-4, 0.05, 0.85, 500),
        ("uper-net-160k", 20_210, 160_000, 6e-5, 0.01, 1.0, 1500),
    ],
)
def test_schedules_published_with_revcol(recipe, images, steps, lr, decay, layer_decay, warmup):
    """AdamW with 16 images a step; drop path 0.3 is the model's."""
    config = get_recipe(recipe)
    assert config.optimizer.name == "adamw" and (config.optimizer.momentum, config.optimizer.beta2) == (0.9, 0.999)
    assert config.optimizer.layer_decay == layer_decay and not config.ema.enabled
    assert find_spec(config.model.name).backbone.drop_path == 0.3
    for batch in (2, 16):
        schedule = Schedule(config.schedule, config.optimizer, config.epochs, images // batch, batch)
        plan = schedule.at(warmup + 1)
        assert schedule.warmup_iterations == warmup and plan.accumulate * batch == 16
        assert plan.lr[1] == pytest.approx(lr, rel=0.02) and schedule.weight_decay == decay
        assert config.epochs * (images // batch) * batch / 16 == pytest.approx(steps, rel=0.005)
    fallen = [schedule.at(round(share * steps)).lr[1] / lr for share in (0.5, 0.999)]
    assert fallen == pytest.approx([0.5, 0.0], abs=0.011)
