"""Packaged recipes: the published values, the gains that they become, and which one is chosen."""

import pytest

from cloverleaf import create_model, list_models
from cloverleaf.errors import ConfigError
from cloverleaf.models.criterion import build_criterion
from cloverleaf.recipes.catalog import RECIPES, choose_recipe, get_recipe, published_recipe
from cloverleaf.training.config_io import flatten, to_dict

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
    ],
)
def test_large_sets_get_the_recipe_of_their_model(model, recipe):
    name, reason = choose_recipe(model, 118_000)
    assert name == recipe and "118000" in reason
    assert choose_recipe(model, 300)[0] == "small"


def test_every_model_has_a_published_recipe():
    assert {published_recipe(model) for model in list_models("yolov7*")} <= set(PUBLISHED)
