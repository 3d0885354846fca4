"""Packaged recipes: the published values, the gains that they become, and which one is chosen."""

import pytest

from cloverleaf import create_model, list_models
from cloverleaf.errors import ConfigError
from cloverleaf.models.criterion import build_criterion
from cloverleaf.recipes.catalog import RECIPES, choose_recipe, get_recipe, published_recipe
from cloverleaf.recipes.resolve import resolve
from cloverleaf.training.config_io import flatten, to_dict, update
from cloverleaf.training.phases import resolve_phases
from cloverleaf.training.schedule import Schedule

COMMON = {
    "epochs": 300, "optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.momentum": 0.937,
    "optimizer.weight_decay": 0.0005, "schedule.warmup_epochs": 3.0, "schedule.warmup_momentum": 0.8,
    "schedule.warmup_bias_lr": 0.1, "schedule.warmup_min_iterations": 1000, "schedule.nominal_batch": 64,
    "schedule.kind": "cosine", "schedule.update": "epoch", "loss.assigner": "simota", "loss.anchor_t": 4.0,
    "loss.fl_gamma": 0.0, "loss.cls_pw": 1.0, "loss.obj_pw": 1.0, "loss.label_smoothing": 0.0,
    "loss.auxiliary": "coarse-to-fine", "loss.auxiliary_gain": 0.25, "loss.dynamic_k_candidates": None,
    "augment.hsv_h": 0.015, "augment.hsv_s": 0.7, "augment.hsv_v": 0.4, "augment.degrees": 0.0, "augment.shear": 0.0,
    "augment.perspective": 0.0, "augment.flipud": 0.0, "augment.fliplr": 0.5, "augment.mosaic": 1.0,
    "augment.copy_paste": 0.0, "assigner_warmup": 0.0, "multi_scale": False, "ema.decay": 0.9999, "ema.ramp": 2000.0,
    "loss.box": 0.05,
}  # fmt: skip
COLUMNS = ("schedule.final_factor", "loss.cls", "loss.obj", "augment.translate", "augment.scale", "augment.mixup",
           "augment.paste_in", "data.image_size", "data.batch_size", "model.name")  # fmt: skip
PUBLISHED = {
    "yolov7-p5": (0.1, 0.3, 0.7, 0.2, 0.9, 0.15, 0.15, 640, 32, "yolov7"),
    "yolov7-p6": (0.2, 0.3, 0.7, 0.2, 0.9, 0.15, 0.15, 1280, 16, "yolov7-w6"),
    "yolov7-tiny": (0.01, 0.5, 1.0, 0.1, 0.5, 0.05, 0.05, 640, 32, "yolov7-tiny"),
    "yolov7-custom": (0.1, 0.3, 0.7, 0.2, 0.5, 0.0, 0.0, 640, 32, "yolov7"),
}


YOLOR = {
    **COMMON, "schedule.final_factor": 0.2, "loss.assigner": "anchor_ratio", "loss.gains": "yolor",
    "augment.extra_zoom": 0.0, "augment.mosaic9": 0.0, "augment.paste_in": 0.0, "augment.close_mosaic": 0,
}  # fmt: skip
YOLOR_COLUMNS = ("epochs", "loss.cls", "loss.obj", "loss.cell_ties", "augment.translate", "augment.scale",
                 "augment.mixup", "data.image_size", "model.name")  # fmt: skip
YOLOR_PUBLISHED = {
    "yolor-csp": (300, 0.3, 0.7, "lower", 0.1, 0.9, 0.0, 640, "yolor-csp"),  # scratch.640
    "yolor-p6": (300, 0.5, 1.0, "both", 0.5, 0.5, 0.0, 1280, "yolor-p6"),  # scratch.1280
    "yolor-p6-darknet": (300, 0.5, 1.0, "lower", 0.5, 0.5, 0.0, 1280, "yolor-p6-darknet"),
    "yolor-finetune": (150, 0.5, 1.0, "both", 0.5, 0.8, 0.2, 1280, "yolor-p6"),  # finetune.1280
    "yolor-small": (300, 0.5, 1.0, "both", 0.1, 0.5, 0.0, 640, "yolor-ssss-s2d"),  # scratch.s
    "yolor-p6-450": (450, 0.5, 1.0, "both", 0.5, 0.5, 0.0, 1280, "yolor-p6"),
}


@pytest.mark.parametrize("name", YOLOR_PUBLISHED)
def test_published_values_of_yolor(name):
    values = flatten(to_dict(get_recipe(name)))
    expected = {**YOLOR, **dict(zip(YOLOR_COLUMNS, YOLOR_PUBLISHED[name], strict=True)), "recipe": name}
    assert {key: values[key] for key in expected} == expected


def test_the_papers_two_phases():
    """300 epochs from scratch; 125 with nine tiles and 25 with four, on the last third of a curve over 450 epochs."""
    recipe = get_recipe("yolor-p6-450")
    phases = resolve_phases(recipe)
    assert phases.ends == (300, 425, 450)
    augment = [(p.augment.mosaic9, p.augment.scale, p.augment.mixup, p.augment.translate) for p in phases.values]
    assert augment == [(0.0, 0.5, 0.0, 0.5), (1.0, 0.8, 0.2, 0.5), (0.0, 0.8, 0.2, 0.5)]
    schedule = Schedule(recipe.schedule, recipe.optimizer, 450, 1000, 64, phases=phases.map(lambda p: p.schedule))
    rates = [schedule.at(epoch * 1000 + 500).lr[1] / 0.01 for epoch in (4, 299, 300, 301, 449)]
    assert rates == pytest.approx([1.0, 0.2, 0.2, 0.4, 0.2], abs=2e-3)  # by the lag, 300 has the last rate of the first
    assert resolve_phases(update(recipe, {"epochs": 12})).ends == (8, 11, 12)
    assert resolve_phases(get_recipe("small-phases")).ends == (67, 90, 100)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    values = flatten(to_dict(get_recipe(name)))
    expected = {**COMMON, **dict(zip(COLUMNS, PUBLISHED[name], strict=True)), "recipe": name}
    assert {key: values[key] for key in expected} == expected


def test_every_recipe_is_named_as_it_is_called():
    assert {name: make().recipe for name, make in RECIPES.items()} == {name: name for name in RECIPES}
    with pytest.raises(ConfigError, match="yolov7-p6"):
        get_recipe("yolov7-p7")


def test_p6_gains_and_labels():
    """Four levels at 1280 px: the published gains; a narrow model with an auxiliary head learns coarse labels there."""
    recipe = get_recipe("yolov7-p6")
    narrow = {"width": 0.0625}
    model = create_model(recipe.model.name, backbone=narrow, neck=narrow, head=narrow)
    criterion = build_criterion(model, recipe.loss, image_size=recipe.data.image_size)
    assert (criterion.box_gain, criterion.cls_gain, criterion.obj_gain) == pytest.approx((0.0375, 0.225, 2.1))
    assert criterion.assigner.top_candidates == criterion.auxiliary.coarse.top_candidates == 20
    assert (criterion.assigner.reach, criterion.auxiliary.coarse.reach) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("yolov7-tiny", "yolov7-tiny"),
        ("yolov7-tiny-silu", "yolov7-tiny"),
        ("elan-tiny+elan-pan+anchor", "yolov7-tiny"),
        ("elan+elan-pan+anchor", "yolov7-p5"),
        ("yolov7", "yolov7-p5"),
        ("yolov7x", "yolov7-p5"),
        ("yolov7-w6", "yolov7-p6"),
        ("yolov7-e6e", "yolov7-p6"),
        ("yolor-csp", "yolor-csp"),
        ("yolor-csp-x", "yolor-csp"),
        ("yolor-ssss-s2d", "yolor-small"),
        ("yolor-p6", "yolor-p6"),
        ("yolor-d6", "yolor-p6"),
        ("yolor-w6-darknet", "yolor-p6-darknet"),
        ("yolov4-csp", "yolor-csp"),
        ("yolov4-p7", "yolor-p6-darknet"),
        ("yolor-csp-v7", "yolov7-p5"),
        ("yolor-p6-v7", "yolov7-p6"),
    ],
)
def test_large_sets_get_the_recipe_of_their_model(model, recipe):
    name, reason = choose_recipe(model, 118_000)
    assert name == recipe and "118000" in reason
    assert choose_recipe(model, 300)[0] == "small"


def test_a_recipe_is_no_option():
    with pytest.raises(ConfigError, match=r"among the options has no effect.*--recipe small"):
        resolve({"recipe": "small"})


def test_every_model_has_a_published_recipe():
    assert {published_recipe(model) for model in list_models("yolov7*")} <= set(PUBLISHED)
    yolor = {published_recipe(model) for model in (*list_models("yolor*"), *list_models("yolov4*"))}
    assert yolor == set(YOLOR_PUBLISHED) - {"yolor-finetune", "yolor-p6-450"} | {"yolov7-p5", "yolov7-p6"}
