"""Gains and options of the criterion of anchor-free heads (`--set loss.dense.x=`) and of distillation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Gain = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DenseLossConfig:
    """Gold-YOLO's loss (arXiv 2309.11331 and its published implementation); the defaults are published for s, m and l.

    Attributes:
        assigner: `tal`, task-aligned, as published, or `atss`.
        iou: form of the IoU in the box loss; published: `siou` for n, `giou` for the others.
        cls, box, dfl: gains.
        topk: positions per object of the task-aligned assigner.
        aided_topk: the same for the anchor branch of a head that has one.
        alpha, beta: exponents of score and IoU in the task-aligned metric.
        nominal_batch: images per process of the published runs. Published gradients add up over processes of so many
            images, each with the mean over its own objects, and class distillation adds up over images; ours are those
            of the published run with as many images, on any number of processes (docs/fidelity.md, entry 83).
    """

    assigner: Literal["tal", "atss"] = "tal"
    iou: Literal["iou", "giou", "diou", "ciou", "siou"] = "giou"
    cls: Gain = 1.0
    box: Gain = 2.5
    dfl: Gain = 0.5
    topk: Annotated[int, Field(ge=1)] = 13
    aided_topk: Annotated[int, Field(ge=1)] = 26
    alpha: Gain = 1.0
    beta: Gain = 6.0
    nominal_batch: Annotated[float, Field(gt=0)] = 32.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DistillationConfig:
    """Self-distillation (arXiv 2309.11331 and its published implementation): what is learned from a trained model.

    Attributes:
        teacher: a weights file; null trains without one. Empty means that one must be given.
        temperature: of the softmaxes that are compared, at least 0.1.
        cls, dfl: weights of the class and the distance term; published 1 and 1 for n and s, 0.8 and 1 for m, 2 and 1
            for l.
        scale_classes: multiply the class term by K / 80, because the divergence of softmaxes over K probabilities falls
            with 1 / K; the published weights are for 80 classes.
        feature: weight of the term that compares the neck's maps; published 0, and 10 where it is switched on.
        teacher_mode: `eval`, the teacher as it is judged; or `train`, as published: statistics of the batch, which are
            not kept, and drop path.
    """

    teacher: str | None = None
    temperature: Annotated[float, Field(ge=0.1)] = 20.0
    cls: Gain = 1.0
    dfl: Gain = 1.0
    scale_classes: bool = True
    feature: Gain = 0.0
    teacher_mode: Literal["train", "eval"] = "eval"
