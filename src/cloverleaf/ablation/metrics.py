"""What the table of a study shows, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cloverleaf.models.spec import Task


@dataclass(frozen=True, slots=True)
class Table:
    """Of one task.

    Attributes:
        columns: metrics as runs name them, and as the table does; differences are drawn of the first.
        latency: what is timed.
        flops: what is counted.
    """

    columns: Mapping[str, str]
    latency: str
    flops: str

    @property
    def judged(self) -> str:
        """The metric that the picture and the curves show, as runs name it."""
        return next(iter(self.columns))

    def led_by(self, metric: str) -> Table:
        """The same with ``metric``, as runs name it, as the first column; as it is where that is empty."""
        if not metric:
            return self
        return replace(self, columns={metric: self.columns[metric], **self.columns})


_COUNTED = "GFLOPs (2 x multiply-accumulates) of the fused form"
TABLES: Mapping[Task, Table] = {
    "detect": Table(
        {"AP": "AP", "AP50": "AP50", "APs": "AP-small"}, "forward pass of the fused model, eager", _COUNTED
    ),
    "instance": Table(
        {"mask_AP": "mask AP", "mask_AP50": "mask AP50", "AP": "box AP"},
        "whole prediction of the fused model, eager and untrained, so that it looks at as many regions as it may",
        f"{_COUNTED}, without what follows for each region",
    ),
    "classify": Table(
        {"top1": "top-1", "mean_accuracy": "mean accuracy"},
        "forward pass of the fused model, eager",
        _COUNTED,
    ),
    "multi": Table(
        {
            "AP": "AP",
            "AP50": "AP50",
            "tag_mAP": "tag mAP",
            "tag_F1": "tag F1",
            "R1": "R1",
            "R5": "R5",
            "retrieval_mAP": "retrieval mAP",
        },
        "forward pass of the fused model, eager",
        _COUNTED,
    ),
    "semantic": Table(
        {"mIoU": "mIoU", "mAcc": "mAcc", "pixel_accuracy": "pixel accuracy"},
        "whole prediction of the fused model with its subdivision, eager",
        f"{_COUNTED}, without the subdivision",
    ),
}
