"""What a run does differently from task to task: one entry per task, and the checks that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.collate import TargetOptions
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.label_map import MOST_CLASSES
from cloverleaf.data.require_classes import require_class_folders, require_objects
from cloverleaf.data.require_masks import require_masks
from cloverleaf.data.transforms.whole_images import TrainTransform
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.models.catalog import MODELS, find_spec
from cloverleaf.models.spec import DetectorSpec, Task
from cloverleaf.predict.judges import BACKGROUND
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.multi import check_labels, for_dataset


@dataclass(frozen=True, slots=True)
class RunTask:
    """How runs of a task differ.

    Attributes:
        columns: metrics in results.csv and in the table of a run's weights.
        headline: those of them in the progress and in the last line, the one that matters most first.
        masks, semantic: what targets hold beside boxes.
        whole_images: images have a class each, and a data path of their own.
        spoilt_by: augmentations that leave masks or pixels wrong, with the reason.
        without_effect: evaluation options that mean nothing.
        default_model: what is trained where no model is named; empty for the recipe's.
    """

    columns: tuple[str, ...]
    headline: tuple[str, ...]
    masks: bool = False
    semantic: bool = False
    whole_images: bool = False
    spoilt_by: Mapping[str, str] | None = None
    without_effect: tuple[str, ...] = ()
    default_model: str = ""


_PASTED = "what is pasted over an object does not take its pixels away"
RUN_TASKS: Mapping[Task, RunTask] = {
    "detect": RunTask(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"), ("AP", "AP50")),
    "instance": RunTask(
        columns=(
            *("mask_AP", "mask_AP50", "mask_AP75", "mask_APs", "mask_APm", "mask_APl", "mask_AR100"),
            *("AP", "AP50", "AP75"),
        ),
        headline=("mask_AP", "mask_AP50", "AP"),
        masks=True,
        spoilt_by={"mosaic9": "its tiles overlap", "copy_paste": _PASTED, "paste_in": _PASTED},
        without_effect=("iou", "multi_label"),
        default_model="timm/resnet18+fpn+mask-rcnn",
    ),
    "semantic": RunTask(
        columns=("mIoU", "mAcc", "pixel_accuracy"),
        headline=("mIoU", "mAcc", "pixel_accuracy"),
        semantic=True,
        spoilt_by={
            "mosaic9": "its tiles overlap",
            "copy_paste": _PASTED,
            "paste_in": _PASTED,
            "mixup": "a blended pixel has two classes",
        },
        without_effect=("confidence", "iou", "multi_label", "max_detections", "ap_detections"),
        default_model="timm/resnet18+fpn+point-rend",
    ),
    "classify": RunTask(
        columns=("top1", "top5", "mean_accuracy", "loss"),
        headline=("top1", "mean_accuracy", "loss"),
        whole_images=True,
        without_effect=("confidence", "iou", "multi_label", "max_detections", "ap_detections"),
        default_model="revcol-pico",
    ),
    "multi": RunTask(
        columns=("AP", "AP50", "AP75", "tag_mAP", "tag_F1", "R1", "R5", "retrieval_mAP"),
        headline=("AP", "tag_mAP", "R1"),
        default_model="yolov7-tiny",
    ),
}


def spoken(metric: str) -> str:
    """``mask_AP`` -> ``mask AP``."""
    return metric.replace("_", " ")


def target_options(config: TrainConfig) -> TargetOptions:
    """What the targets of a run hold."""
    task = RUN_TASKS[config.task]
    spec = chosen_spec(config.model)
    return TargetOptions(
        masks=task.masks,
        semantic=task.semantic,
        boxes_as_masks=config.data.boxes_as_masks,
        covered=spec.supervision is not None and spec.supervision.reconstructs,
    )


def chosen_spec(model: ModelConfig) -> DetectorSpec:
    """What is trained, with the classes of the catalog.

    Raises:
        UnknownModelError: no model or part of that name.
        ConfigError: an unknown option, or a value of the wrong type or range.
    """
    return find_spec(model.name).with_overrides(model.parts)


def model_classes(task: Task, names: tuple[str, ...]) -> tuple[str, ...]:
    """Classes of a model for a dataset's classes: a semantic one counts the background as its first."""
    return (BACKGROUND, *names) if RUN_TASKS[task].semantic else names


def dataset_spec(config: TrainConfig, index: DetectionIndex) -> DetectorSpec:
    """What is trained on the dataset of ``index``: with its classes, and with its tags and individuals.

    Raises:
        UnknownModelError: no model or part of that name.
        ConfigError: an unknown option, or a value of the wrong type or range, or not that of the dataset.
    """
    spec = replace(find_spec(config.model.name), num_classes=len(model_classes(config.task, index.names)))
    return for_dataset(spec.with_overrides(config.model.parts), config, index)


def check_model(config: TrainConfig) -> None:
    """Refuse a model that is for another task.

    Raises:
        ConfigError: it is; with models that fit.
    """
    task = chosen_spec(config.model).task
    if task == config.task:
        return
    fitting = [RUN_TASKS[config.task].default_model, *(n for n, v in MODELS.items() if v.spec.task == config.task)]
    raise ConfigError(
        f"--task {config.task} does not fit {config.model.name}",
        f"its head is for --task {task}",
        f"leave --task out, or choose a model such as {', '.join([name for name in fitting if name][:4])}",
    )


def check_options(config: TrainConfig) -> None:
    """Refuse options that a task cannot use.

    Raises:
        ConfigError: augmentation that would teach wrong masks, or an option without effect.
    """
    task = RUN_TASKS[config.task]
    _check_whole_images(config, task.whole_images)
    spoilt = task.spoilt_by or {}
    used = {name: why for name, why in spoilt.items() if getattr(config.augment, name) and _happens(name, config)}
    if used:
        name, why = next(iter(used.items()))
        raise ConfigError(
            f"augment.{name} = {getattr(config.augment, name)} does not fit --task {config.task}",
            f"masks would be wrong: {why}",
            " ".join(f"--set augment.{key}=0" for key in used),
        )
    if config.task not in ("detect", "multi") and config.assigner_warmup:
        raise ConfigError(
            f"assigner_warmup = {config.assigner_warmup} has no effect", f"--task {config.task} has no such assigner",
            "leave --recipe out, or --set assigner_warmup=0",
        )  # fmt: skip
    usual = EvalConfig()
    for name in task.without_effect:
        if (value := getattr(config.evaluation, name)) != getattr(usual, name):
            raise ConfigError(
                f"evaluation.{name} = {value!r} has no effect", f"--task {config.task} does not use it", "leave it out"
            )
    if config.data.boxes_as_masks and not (task.masks or task.semantic):
        raise ConfigError(
            "data.boxes_as_masks has no effect", f"--task {config.task} needs no masks", "leave it out"
        )  # fmt: skip


def _check_whole_images(config: TrainConfig, whole_images: bool) -> None:
    """Whole images have their own augmentation, and nothing of that of objects."""
    if not whole_images:
        return _refuse_set("classify", config.classify, ClassifyConfig(), config.task)
    _refuse_set("augment", config.augment, AugmentConfig(), config.task)
    plain = DataConfig()
    for name in ("cache", "rectangular_eval"):
        if (value := getattr(config.data, name)) != getattr(plain, name):
            raise ConfigError(
                f"data.{name} = {value!r} has no effect", f"--task {config.task} reads whole images as they are stored",
                "leave it out",
            )  # fmt: skip
    TrainTransform(config.classify, config.data.image_size)  # raises for options that exclude each other
    return None


def _refuse_set(section: str, given: Any, usual: Any, task: Task) -> None:
    """Refuse options of a section that a task does not use."""
    for field in fields(usual):
        if (value := getattr(given, field.name)) != getattr(usual, field.name):
            raise ConfigError(
                f"{section}.{field.name} = {value!r} has no effect", f"--task {task} does not use it",
                "leave it out, or the --recipe that sets it",
            )  # fmt: skip


def _happens(name: str, config: TrainConfig) -> bool:
    """Whether an augmentation is ever drawn: mixing belongs to mosaics."""
    augment: AugmentConfig = config.augment
    return name == "paste_in" or bool(augment.mosaic and augment.close_mosaic < config.epochs)


def check_data(config: TrainConfig, *splits: DetectionIndex) -> None:
    """Refuse a dataset that the task cannot be learned from.

    Raises:
        DataError: objects without masks, more classes than a label map can hold, objects where whole images have a
            class, and the other way round, no tags or identities in the first split where they are learned; other
            tags in another, or labels for nothing that is learned.
    """
    task = RUN_TASKS[config.task]
    if config.task == "multi":
        check_labels(chosen_spec(config.model), config, *splits)
    for index in splits:
        (require_class_folders if task.whole_images else require_objects)(index)
    if not (task.masks or task.semantic):
        return
    for index in splits:
        require_masks(index, boxes_as_masks=config.data.boxes_as_masks)
        if task.semantic and len(index.names) > MOST_CLASSES:
            raise DataError(
                f"{index.source} has {len(index.names)} classes",
                f"label maps hold at most {MOST_CLASSES} beside the background",
                "leave out or merge classes",
            )
