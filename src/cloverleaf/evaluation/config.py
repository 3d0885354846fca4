"""How a detector is judged; every field is a `--set evaluation.x=` option."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvalConfig:
    """The protocol of the published test script of YOLOv7 (docs/evaluation.md).

    Attributes:
        confidence: smallest score that counts.
        iou: NMS threshold.
        multi_label: a box may carry several classes.
        max_detections: kept per image.
        ap_detections: of these the best of each image and class that count for average precision; COCO takes 100.
        interval: epochs between two evaluations during training; the last epoch is always judged.
    """

    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.001
    iou: Annotated[float, Field(gt=0, le=1)] = 0.65
    multi_label: bool = True
    max_detections: Annotated[int, Field(ge=1)] = 300
    ap_detections: Annotated[int, Field(ge=10)] = 100
    interval: Annotated[int, Field(ge=1)] = 1
