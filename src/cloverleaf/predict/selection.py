"""From what an engine gives to detections, with the thresholds that apply to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.deploy.suppression import Suppression
from cloverleaf.errors import ConfigError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.ops.nms import batched_nms
from cloverleaf.predict.engine import Dense, EngineInfo, Found

_FEWEST = 10  # COCO's numbers of detections are 1, 10 and one that is not lower


def select(
    output: Dense | Found,
    suppression: Suppression,
    *,
    multi_label: bool = False,
    class_agnostic: bool = False,
    classes: Sequence[int] | None = None,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes ``(n, 4)``, scores ``(n,)`` and labels ``(n,)`` of every image, by descending score.

    Detections that an engine suppressed itself are thinned out: a higher confidence, fewer detections or fewer classes
    leave what a suppression with these would have left, as it never looks ahead (of the classes left out, those among
    an engine's best D have taken places). What cannot be had this way must have been refused by `choose_suppression`
    or `evaluation_config`.

    Args:
        output: predictions or detections.
        suppression, multi_label, class_agnostic, classes: as in `ops.nms.batched_nms`.
    """
    if isinstance(output, Dense):
        return batched_nms(
            output.boxes,
            output.scores,
            confidence=suppression.confidence,
            iou=suppression.iou,
            multi_label=multi_label,
            class_agnostic=class_agnostic,
            classes=classes,
            max_detections=suppression.max_detections,
        )
    places = torch.arange(output.scores.shape[1], device=output.scores.device)
    wanted = (places < output.counts[:, None]) & (output.scores > suppression.confidence)
    if classes is not None:
        wanted &= torch.isin(output.labels, torch.as_tensor(list(classes), device=output.labels.device))
    wanted &= wanted.cumsum(1) <= suppression.max_detections
    columns = zip(output.boxes, output.scores, output.labels, wanted, strict=True)
    return [(boxes[kept], scores[kept], labels[kept]) for boxes, scores, labels, kept in columns]


def choose_suppression(
    info: EngineInfo,
    *,
    confidence: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
    class_agnostic: bool = False,
) -> Suppression:
    """The thresholds of detection: as given, else those inside the model, else the published ones (0.25, 0.45, 300).

    Raises:
        ConfigError: a threshold is out of range, or the model's own suppression cannot be turned into that.
    """
    base = info.suppression or Suppression()
    chosen = Suppression(
        confidence=base.confidence if confidence is None else confidence,
        iou=base.iou if iou is None else iou,
        max_detections=base.max_detections if max_detections is None else max_detections,
    )
    _check_inside(info, chosen, class_agnostic=class_agnostic)
    return chosen


def evaluation_config(
    info: EngineInfo, *, confidence: float | None = None, iou: float | None = None, max_detections: int | None = None
) -> EvalConfig:
    """The thresholds of an evaluation: as given, else those inside the model, else the published ones.

    Raises:
        ConfigError: a threshold is out of range or means nothing for the model's task, or the model's own suppression
            cannot be turned into that.
    """
    refuse_thresholds(info, confidence=confidence, iou=iou, max_detections=max_detections)
    published = EvalConfig()
    kept = published.max_detections if max_detections is None else max_detections
    counted = published.ap_detections if max_detections is None else max(max_detections, _FEWEST)
    if info.suppression is None:
        return EvalConfig(
            confidence=published.confidence if confidence is None else confidence,
            iou=published.iou if iou is None else iou,
            max_detections=max(kept, counted),
            ap_detections=counted,
        )
    chosen = choose_suppression(info, confidence=confidence, iou=iou, max_detections=max_detections)
    return EvalConfig(
        confidence=chosen.confidence,
        iou=chosen.iou,
        multi_label=False,
        max_detections=chosen.max_detections,
        ap_detections=counted,
    )


def refuse_thresholds(info: EngineInfo, **given: object) -> None:
    """Refuse thresholds, by name and None where left out, that a model for another task than boxes does not have.

    Raises:
        ConfigError: one is given.
    """
    without: dict[str, tuple[str, ...]] = {
        "instance": ("iou", "class_agnostic"),
        "semantic": ("confidence", "iou", "max_detections", "class_agnostic", "classes"),
        "classify": ("confidence", "iou", "max_detections", "class_agnostic", "classes"),
    }
    reasons = {
        "instance": "its suppression is inside the head, whose option nms_iou is fixed when it is trained",
        "semantic": "it gives every pixel its likeliest class, and no detections",
        "classify": "it gives the probability of every class of the whole image, and no detections",
    }
    wrong = [name for name in without.get(info.task, ()) if given.get(name) not in (None, False)]
    if wrong:
        raise ConfigError(f"{' and '.join(wrong)} cannot be set for {info.name}", reasons[info.task], "leave it out")


def suppression_of(info: EngineInfo, config: EvalConfig) -> Suppression:
    """The thresholds of an evaluation as those of a suppression.

    Raises:
        ConfigError: the model's own suppression cannot be turned into that.
    """
    chosen = Suppression(confidence=config.confidence, iou=config.iou, max_detections=config.max_detections)
    _check_inside(info, chosen, multi_label=config.multi_label and info.num_classes > 1)
    return chosen


def _check_inside(
    info: EngineInfo, wanted: Suppression, *, class_agnostic: bool = False, multi_label: bool = False
) -> None:
    """Refuse what a suppression inside the model makes impossible."""
    inside = info.suppression
    if inside is None:
        return
    faults = [
        text
        for text, wrong in (
            (
                f"confidence {wanted.confidence:g} (at least {inside.confidence:g})",
                wanted.confidence < inside.confidence,
            ),
            (f"iou {wanted.iou:g} (only {inside.iou:g})", wanted.iou != inside.iou),
            (
                f"{wanted.max_detections} detections (at most {inside.max_detections})",
                wanted.max_detections > inside.max_detections,
            ),
            ("class-agnostic suppression", class_agnostic),
            ("several classes for one box (multi_label)", multi_label),
        )
        if wrong
    ]
    if faults:
        raise ConfigError(
            f"{info.name} cannot give {', '.join(faults)}",
            "its non-maximum suppression is inside the file, where its thresholds are fixed",
            "leave them out, or export the weights without NMS or with these thresholds",
        )
