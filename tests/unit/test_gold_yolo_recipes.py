"""The recipes of Gold-YOLO: the published values, which one is chosen, and that their models accept them."""

import pytest

from cloverleaf import create_model, list_models
from cloverleaf.models.criterion import build_criterion
from cloverleaf.recipes.catalog import choose_recipe, get_recipe, published_recipe
from cloverleaf.training.config_io import flatten, to_dict

COMMON = {
    "epochs": 300, "optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.momentum": 0.937,
    "optimizer.weight_decay": 0.0005, "optimizer.clip_norm": 0.0, "schedule.warmup_epochs": 3.0,
    "schedule.warmup_momentum": 0.8, "schedule.warmup_bias_lr": 0.1, "schedule.warmup_min_iterations": 1000,
    "schedule.nominal_batch": 64, "schedule.kind": "cosine", "schedule.update": "epoch-exact",
    "schedule.final_factor": 0.01, "assigner_warmup": 0.0, "multi_scale": False, "ema.decay": 0.9999,
    "ema.ramp": 2000.0, "data.image_size": 640, "augment.hsv_h": 0.015, "augment.hsv_s": 0.7, "augment.hsv_v": 0.4,
    "augment.degrees": 0.0, "augment.shear": 0.0, "augment.translate": 0.1, "augment.flipud": 0.0,
    "augment.fliplr": 0.5, "augment.mosaic": 1.0, "augment.mosaic9": 0.0, "augment.paste_in": 0.0,
    "augment.copy_paste": 0.0, "augment.close_mosaic": 15, "loss.dense.assigner": "tal", "loss.dense.cls": 1.0,
    "loss.dense.box": 2.5, "loss.dense.dfl": 0.5, "loss.dense.topk": 13, "loss.dense.aided_topk": 26,
    "loss.dense.alpha": 1.0, "loss.dense.beta": 6.0,
}  # fmt: skip
COLUMNS = ("data.batch_size", "loss.dense.nominal_batch", "loss.dense.iou", "augment.scale", "augment.mixup")
STEP_1 = {
    "n": (128, 16.0, "siou", 0.5, 0.0),
    "s": (256, 32.0, "giou", 0.5, 0.0),
    "m": (256, 32.0, "giou", 0.9, 0.1),
    "l": (256, 32.0, "giou", 0.9, 0.1),
}
STEP_2 = {"n": ({"direct": True}, 1.0), "s": ({"direct": True}, 1.0), "m": ({}, 0.8), "l": ({}, 2.0)}


@pytest.mark.parametrize("size", STEP_1)
def test_published_values(size):
    name = f"gold-yolo-{size}"
    values = flatten(to_dict(get_recipe(name)))
    step_1 = {**COMMON, **dict(zip(COLUMNS, STEP_1[size], strict=True)), "recipe": name, "model.name": name}
    assert {key: values[key] for key in step_1} == step_1
    assert get_recipe(name).model.head == {"aided": True}
    assert values["distillation.teacher"] is None

    head, cls = STEP_2[size]
    recipe = get_recipe(f"{name}-distill")
    values = flatten(to_dict(recipe))
    step_2 = {**step_1, "recipe": f"{name}-distill", "distillation.teacher": "", "distillation.temperature": 20.0}
    step_2 |= {"distillation.cls": cls, "distillation.dfl": 1.0, "distillation.feature": 0.0}
    step_2 |= {"distillation.teacher_mode": "train"}
    if size == "l":
        step_2 |= {"data.batch_size": 128, "loss.dense.nominal_batch": 16.0, "optimizer.lr": 0.005}
    assert {key: values[key] for key in step_2} == step_2
    assert recipe.model.head == head


@pytest.mark.parametrize("step", ["", "-distill"])
def test_the_model_of_a_recipe_takes_its_loss(step):
    recipe = get_recipe(f"gold-yolo-n{step}")
    model = create_model(recipe.model.name, num_classes=2, head=recipe.model.head)
    criterion = build_criterion(model, recipe.loss, image_size=640, distillation=recipe.distillation)
    assert (criterion.aided_assigner is None) == (step == "-distill")
    assert criterion.aided_assigner is None or criterion.aided_assigner.topk == 26


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("gold-yolo-n", "gold-yolo-n"), ("gold-yolo-l", "gold-yolo-l"), ("elan-tiny+elan-pan+dense", "gold-yolo-n"),
        ("timm/resnet18+elan-pan+dense", "gold-yolo-s"),
    ],
)  # fmt: skip
def test_large_sets_get_the_recipe_of_their_model(model, recipe):
    assert choose_recipe(model, 118_000)[0] == recipe
    assert choose_recipe(model, 118_000, teacher=True)[0] == f"{recipe}-distill"
    assert choose_recipe(model, 300, teacher=True)[0] == "small"


def test_every_size_has_a_recipe_of_its_own():
    assert {published_recipe(model) for model in list_models("gold-yolo-*")} == {f"gold-yolo-{s}" for s in STEP_1}
