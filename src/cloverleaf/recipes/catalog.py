"""Every packaged recipe by name, and the choice of one when the user names none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloverleaf.errors import ConfigError, suggest
from cloverleaf.heads.multi import MultiHeadSpec
from cloverleaf.models import yolo_styles
from cloverleaf.models.catalog import MODELS, find_spec
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.recipes.anchor_free import anchor_free
from cloverleaf.recipes.demo import demo
from cloverleaf.recipes.gold_yolo import (
    gold_yolo_l,
    gold_yolo_l_distill,
    gold_yolo_m,
    gold_yolo_m_distill,
    gold_yolo_n,
    gold_yolo_n_distill,
    gold_yolo_s,
    gold_yolo_s_distill,
)
from cloverleaf.recipes.multi import multi
from cloverleaf.recipes.revcol import classify, imagenet, revcol_base, revcol_small, revcol_tiny
from cloverleaf.recipes.segmentation import (
    cascade_mask_rcnn,
    cascade_mask_rcnn_3x,
    mask_rcnn,
    mask_rcnn_1x,
    point_rend,
    uper_net,
    uper_net_160k,
)
from cloverleaf.recipes.small import small
from cloverleaf.recipes.yolor import (
    recipe_for,
    small_phases,
    yolor_csp,
    yolor_finetune,
    yolor_p6,
    yolor_p6_450,
    yolor_p6_darknet,
    yolor_small,
)
from cloverleaf.recipes.yolov7 import yolov7_custom, yolov7_p5, yolov7_p6, yolov7_tiny
from cloverleaf.training.config import TrainConfig

RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "anchor-free": anchor_free,
    "cascade-mask-rcnn": cascade_mask_rcnn,
    "cascade-mask-rcnn-3x": cascade_mask_rcnn_3x,
    "classify": classify,
    "demo": demo,
    "gold-yolo-l": gold_yolo_l,
    "gold-yolo-l-distill": gold_yolo_l_distill,
    "gold-yolo-m": gold_yolo_m,
    "gold-yolo-m-distill": gold_yolo_m_distill,
    "gold-yolo-n": gold_yolo_n,
    "gold-yolo-n-distill": gold_yolo_n_distill,
    "gold-yolo-s": gold_yolo_s,
    "gold-yolo-s-distill": gold_yolo_s_distill,
    "imagenet": imagenet,
    "mask-rcnn": mask_rcnn,
    "mask-rcnn-1x": mask_rcnn_1x,
    "multi": multi,
    "point-rend": point_rend,
    "revcol-base": revcol_base,
    "revcol-small": revcol_small,
    "revcol-tiny": revcol_tiny,
    "small": small,
    "small-phases": small_phases,
    "uper-net": uper_net,
    "uper-net-160k": uper_net_160k,
    "yolor-csp": yolor_csp,
    "yolor-finetune": yolor_finetune,
    "yolor-p6": yolor_p6,
    "yolor-p6-450": yolor_p6_450,
    "yolor-p6-darknet": yolor_p6_darknet,
    "yolor-small": yolor_small,
    "yolov7-custom": yolov7_custom,
    "yolov7-p5": yolov7_p5,
    "yolov7-p6": yolov7_p6,
    "yolov7-tiny": yolov7_tiny,
}

# Below so many images per epoch the published recipes take too few optimiser steps to learn anything.
SMALL_SET = 5000
SMALL_CLASS_SET = 100_000  # of whole images, which mixing and erasing make harder to learn


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}", "it is not packaged", suggest(name, RECIPES))
    return RECIPES[name]()


def choose_recipe(
    model: str, num_images: int, *, teacher: bool = False, spec: DetectorSpec | None = None
) -> tuple[str, str]:
    """Name of the recipe that fits, and the reason to print; `model`, `teacher` and `spec` as in `published_recipe`.

    Raises:
        UnknownModelError: no model of that name.
    """
    spec = spec or find_spec(model)
    if (task := spec.task) == "classify":
        return _classify_recipe(model, num_images)
    if task not in ("detect", "multi"):
        return _segmentation_recipe(spec.head.type, num_images)
    if num_images < SMALL_SET:
        return "multi" if task == "multi" else "small", (
            f"{num_images} training images: the published recipe warms up for 1000 iterations and steps once per "
            "64 images, which is made for COCO's 118,000; --recipe names another"
        )
    name = published_recipe(model, teacher=teacher, spec=spec)
    return name, f"{num_images} training images are enough for the published recipe of such models"


def published_recipe(model: str, *, teacher: bool = False, spec: DetectorSpec | None = None) -> str:
    """The published recipe for the catalog name or composition of a detector of boxes.

    Args:
        model: of an anchor-based one its image size decides, and tiny ones have their own. Gold-YOLO's sizes have their
            own, models in the style of YOLOv8 and v9 a common one, and other anchor-free models learn by that of s, or
            of n where they are tiny. Models of YOLOR and YOLOv4 have those of YOLOR.
        teacher: whether it is distilled.
        spec: what it is made of, where parts were exchanged.

    Raises:
        UnknownModelError: no model of that name.
    """
    spec = spec or find_spec(model)
    head = spec.head.boxes if isinstance(spec.head, MultiHeadSpec) else spec.head
    styled = model in yolo_styles.VARIANTS
    if head.type == "dense":
        if styled and not teacher:
            return "anchor-free"
        size = model if model in RECIPES else "gold-yolo-n" if styled or "tiny" in model else "gold-yolo-s"
        return f"{size}-distill" if teacher else size
    if model in MODELS and (named := recipe_for(model, MODELS[model].image_size)):
        return named
    if model in MODELS and MODELS[model].image_size > 640:
        return "yolov7-p6"
    return "yolov7-tiny" if styled or "tiny" in model else "yolov7-p5"


def _classify_recipe(model: str, num_images: int) -> tuple[str, str]:
    if num_images < SMALL_CLASS_SET:
        return "classify", (
            f"{num_images} training images: the published recipe, 300 epochs of mixed images, is made "
            "for the 1.28 million of ImageNet"
        )
    if find_spec(model).backbone.type != "revcol":
        return "imagenet", f"{num_images} training images are enough for a recipe that was published for ImageNet"
    size = next((name for name in ("revcol-base", "revcol-small") if name in model), "revcol-tiny")
    return size, f"{num_images} training images are enough for the published recipe of RevCol"


# By the type of the head: the recipe for small sets, and the published one.
_SEGMENTATION: Mapping[str, tuple[str, str]] = {
    "mask-rcnn": ("mask-rcnn", "mask-rcnn-1x"),
    "cascade-mask-rcnn": ("cascade-mask-rcnn", "cascade-mask-rcnn-3x"),
    "point-rend": ("point-rend", "point-rend"),
    "uper-net": ("uper-net", "uper-net-160k"),
}


def _segmentation_recipe(head: str, num_images: int) -> tuple[str, str]:
    small, published = _SEGMENTATION[head]
    if small == published:
        return small, f"the recipe of models with the head {head}"
    if num_images < SMALL_SET:
        return small, f"{num_images} training images: fewer than {published} is made for"
    return published, f"{num_images} training images are enough for the published recipe"
