"""Semantic segmentation: intersection over union and accuracy from one confusion matrix of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import DataError
from cloverleaf.evaluation.coco import finite_or_none

IGNORED = 255


@dataclass(frozen=True, slots=True)
class SemanticMetrics:
    """Result of one evaluation; what is undefined is NaN.

    Attributes:
        class_names: K names, the background's first.
        counts: ``(K, K)`` int64; ``counts[i, j]`` pixels of class i were called class j.
        images: how many were judged.
    """

    class_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    images: int

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """``(K,)`` pixels that are rightly called the class over those that are it, are called it, or both.

        NaN for a class that is nowhere and was called nowhere.
        """
        return _share(np.diag(self.counts), self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts))

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """``(K,)`` share of the class's pixels that are called it; NaN for a class that is nowhere."""
        return _share(np.diag(self.counts), self.counts.sum(1))

    @property
    def values(self) -> dict[str, float]:
        """``mIoU`` and ``mAcc``: means over the classes where they are defined, the background among them;
        ``pixel_accuracy``: share of all pixels."""
        total = _share(np.diag(self.counts).sum()[None], self.counts.sum()[None])
        return {"mIoU": _mean(self.iou), "mAcc": _mean(self.accuracy), "pixel_accuracy": float(total[0])}

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def fitness(self) -> float:
        """mIoU, by which the best weights of a run are chosen; 0 where undefined."""
        return finite_or_none(self.values["mIoU"]) or 0.0

    def to_dict(self) -> dict[str, float | None]:
        """The numbers of the whole dataset, flat; undefined ones are None."""
        return {**{name: finite_or_none(value) for name, value in self.values.items()}, "fitness": self.fitness}

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        rows = zip(self.class_names, self.counts.sum(1).tolist(), self.iou, self.accuracy, strict=True)
        return {
            **self.to_dict(),
            "images": self.images,
            "pixels": int(self.counts.sum()),
            "classes": [
                {"name": name, "pixels": pixels, "IoU": finite_or_none(iou), "accuracy": finite_or_none(accuracy)}
                for name, pixels, iou, accuracy in rows
            ],
            "pixel_confusion": {
                "classes": list(self.class_names),
                "rows": "true",
                "columns": "called",
                "counts": self.counts.tolist(),
            },
        }


class SemanticEvaluator:
    """Counts pixels image by image; the memory does not grow.

    Args:
        class_names: K names, the background's first.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.reset()

    def reset(self) -> None:
        """Forget the images."""
        size = len(self.class_names)
        self._counts = np.zeros((size, size), np.int64)
        self._images = 0

    def update(self, called: npt.NDArray[np.integer], true: npt.NDArray[np.integer]) -> None:
        """Add one image.

        Args:
            called: ``(H, W)`` classes in [0, K).
            true: ``(H, W)`` classes in [0, K), 255 for pixels that do not count.

        Raises:
            DataError: the sizes differ, or there is a class beyond K.
        """
        if called.shape != true.shape:
            raise DataError(
                f"a label map of size {called.shape} cannot be judged by one of size {true.shape}",
                "both must be in pixels of the stored image",
                "scale the prediction back before it is judged",
            )
        size = len(self.class_names)
        counted = true != IGNORED
        rows, columns = true[counted].astype(np.int64), called[counted].astype(np.int64)
        worst = max(int(rows.max(initial=0)), int(columns.max(initial=0)))
        if worst >= size:
            raise DataError(
                f"a pixel has class {worst}", f"there are {size} classes with the background", "check the class list"
            )
        self._counts += np.bincount(rows * size + columns, minlength=size * size).reshape(size, size)
        self._images += 1

    def compute(self) -> SemanticMetrics:
        """Judge everything since the last `reset`."""
        return SemanticMetrics(self.class_names, self._counts.copy(), self._images)


def _share(part: npt.NDArray[np.integer], whole: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: npt.NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
