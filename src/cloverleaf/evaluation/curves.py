"""Precision, recall and F1 over the confidence threshold, and the interpolated average precision of the YOLO family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.table import FloatArray, IntArray

_EPS = 1e-16
GRID = 1000


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves at IoU 0.5; the rows of a class without objects are NaN.

    Attributes:
        confidence: ``(G,)`` thresholds from 0 to 1.
        precision, recall, f1: ``(K, G)`` at each threshold.
        recall_grid: ``(G,)`` recalls from 0 to 1.
        precision_at_recall: ``(K, G)`` precision-recall curve (monotone envelope).
        ap: ``(K, T)`` average precision per IoU threshold, by the published built-in metric (not COCO's).
        best: index of the threshold with the largest mean F1; None where no class has both objects and a correct
            detection.
    """

    confidence: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    recall_grid: FloatArray
    precision_at_recall: FloatArray
    ap: FloatArray
    best: int | None

    @property
    def best_confidence(self) -> float:
        """The threshold with the largest mean F1; NaN where nothing was found."""
        return float("nan") if self.best is None else float(self.confidence[self.best])

    def at_best(self, name: Literal["precision", "recall", "f1"]) -> FloatArray:
        """``(K,)`` values at the best threshold; 0 for classes whose objects were all missed, NaN without objects."""
        values: FloatArray = getattr(self, name)
        return values[:, 0 if self.best is None else self.best]


def confidence_curves(
    correct: npt.NDArray[np.bool_],
    scores: FloatArray,
    labels: IntArray,
    objects_per_class: IntArray,
    *,
    tail: Literal["published", "unit"] = "published",
) -> Curves:
    """Curves of every class.

    Args:
        correct: ``(n, T)`` whether each detection is correct at each IoU threshold; the first column (IoU 0.5) gives
            the curves.
        scores: ``(n,)``.
        labels: ``(n,)`` in [0, K).
        objects_per_class: ``(K,)``.
        tail: where the recall axis ends behind the last detection: at the last recall + 0.01 (published default) or
            at 1 (its "v5 metric" option).
    """
    num_classes, thresholds = len(objects_per_class), correct.shape[1]
    grid = np.linspace(0, 1, GRID)
    precision, recall, envelope = (np.full((num_classes, GRID), np.nan) for _ in range(3))
    ap = np.full((num_classes, thresholds), np.nan)
    order = np.argsort(-scores, kind="stable")
    correct, scores, labels = correct[order], scores[order], labels[order]
    for k in np.flatnonzero(objects_per_class):
        mine = labels == k
        if not mine.any():
            precision[k], recall[k], envelope[k], ap[k] = 0, 0, 0, 0
            continue
        true = np.cumsum(correct[mine], axis=0)
        recalls = true / (objects_per_class[k] + _EPS)
        precisions = true / np.arange(1, len(true) + 1)[:, None]
        recall[k] = np.interp(-grid, -scores[mine], recalls[:, 0], left=0)
        precision[k] = np.interp(-grid, -scores[mine], precisions[:, 0], left=1)
        for t in range(thresholds):
            x, y = _envelope(recalls[:, t], precisions[:, t], tail)
            sampled = np.interp(np.linspace(0, 1, 101), x, y)
            ap[k, t] = (sampled[1:] + sampled[:-1]).sum() / 200
            if t == 0:
                envelope[k] = np.interp(grid, x, y)
    f1 = 2 * precision * recall / (precision + recall + _EPS)
    present = objects_per_class > 0
    mean_f1 = f1[present].mean(0) if present.any() else np.zeros(GRID)
    best = int(mean_f1.argmax()) if mean_f1.max() > 0 else None
    return Curves(grid, precision, recall, f1, grid.copy(), envelope, ap, best)


def _envelope(recall: FloatArray, precision: FloatArray, tail: str) -> tuple[FloatArray, FloatArray]:
    """The padded recall axis and the non-increasing envelope of the precision over it."""
    end = 1.0 if tail == "unit" else recall[-1] + 0.01
    x = np.concatenate([[0.0], recall, [end]])
    y = np.concatenate([[1.0], precision, [0.0]])
    return x, np.maximum.accumulate(y[::-1])[::-1]
