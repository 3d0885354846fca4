"""Whole images: accuracy of the first and of the five likeliest classes, by class, and what was taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.coco import finite_or_none

MOST = 5  # so many of the likeliest classes are kept of an image
_LEAST = 1e-38  # a smaller probability, also 0, costs as much as this


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Result of one evaluation of N images; what is undefined is NaN.

    Attributes:
        class_names: K names of the dataset.
        called_names: names of the classes that the model may call: those of the dataset first, in their order.
        counts: ``(K, C)`` int64; ``counts[i, j]`` images of class i were called class j.
        in_top5: ``(K,)`` int64 images of each class that is among the five likeliest.
        mean_loss: mean cross-entropy, without smoothing.
        true: ``(N,)`` int64 in [0, K).
        best: ``(N, at most 5)`` int64 in [0, C), the likeliest classes.
        scores: ``(N, at most 5)`` float32, their probabilities.
        files: N names.
    """

    class_names: tuple[str, ...]
    called_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    in_top5: npt.NDArray[np.int64]
    mean_loss: float
    true: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    files: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many were judged."""
        return len(self.true)

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """``(K,)`` share of the class's images that are called it; NaN for a class without images."""
        return _share(np.diag(self.counts), self.counts.sum(1))

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """``(K,)`` share of the images called the class that are it; NaN for a class that none is called."""
        return _share(np.diag(self.counts), self.counts.sum(0)[: len(self.class_names)])

    @property
    def values(self) -> dict[str, float]:
        """``top1``: share of the images whose likeliest class is right; ``top5``: of those whose class is among the
        five likeliest, NaN where the model knows no more than five; ``mean_accuracy``: mean over the classes that have
        images of the share of theirs that is right; ``loss``."""
        images = np.array([max(self.images, 1)])
        top5 = float((self.in_top5.sum() / images)[0]) if len(self.called_names) > MOST else float("nan")
        defined = self.accuracy[~np.isnan(self.accuracy)]
        return {
            "top1": float((np.diag(self.counts).sum() / images)[0]) if self.images else float("nan"),
            "top5": top5,
            "mean_accuracy": float(defined.mean()) if defined.size else float("nan"),
            "loss": self.mean_loss,
        }

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def fitness(self) -> float:
        """Top-1 accuracy, by which the best weights of a run are chosen; 0 where undefined."""
        return finite_or_none(self.values["top1"]) or 0.0

    def to_dict(self) -> dict[str, float | None]:
        """The numbers of the whole dataset, flat; undefined ones are None."""
        return {**{name: finite_or_none(value) for name, value in self.values.items()}, "fitness": self.fitness}

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        columns = zip(self.class_names, self.counts.sum(1).tolist(), self.accuracy, self.precision, strict=True)
        return {
            **self.to_dict(),
            "images": self.images,
            "classes": [
                {
                    "name": name,
                    "images": images,
                    "accuracy": finite_or_none(accuracy),
                    "precision": finite_or_none(precision),
                }
                for name, images, accuracy, precision in columns
            ],
            "class_confusion": {
                "classes": list(self.class_names),
                "called": list(self.called_names),
                "rows": "true",
                "columns": "called",
                "counts": self.counts.tolist(),
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """What was said of each image: the file, its class, and the likeliest classes with their probabilities."""
        return [
            {
                "file_name": file,
                "class": self.class_names[true],
                "right": bool(best[0] == true),
                "called": [
                    {"name": self.called_names[k], "score": round(score, 5)}
                    for k, score in zip(best, scores, strict=True)
                ],
            }
            for file, true, best, scores in zip(
                self.files, self.true.tolist(), self.best.tolist(), self.scores.tolist(), strict=True
            )
        ]


class ClassEvaluator:
    """Collects what a classifier says, batch by batch.

    Args:
        class_names: K names of the dataset.
        called_names: names of the classes that the model may call: those of the dataset first, in their order.
    """

    def __init__(self, class_names: Sequence[str], called_names: Sequence[str] | None = None) -> None:
        self.class_names = tuple(class_names)
        self.called_names = tuple(called_names if called_names is not None else class_names)
        assert self.called_names[: len(self.class_names)] == self.class_names
        self._parts: list[tuple[npt.NDArray[Any], ...]] = []
        self._files: list[str] = []

    def update(
        self, probabilities: npt.NDArray[np.floating[Any]], true: npt.NDArray[np.integer[Any]], files: Sequence[str]
    ) -> None:
        """Add images.

        Args:
            probabilities: ``(n, C)``, a column per called class.
            true: ``(n,)`` in [0, K).
            files: n names.
        """
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST]
        own = np.take_along_axis(probabilities, true[:, None].astype(np.int64), 1)[:, 0]
        losses = -np.log(np.maximum(own.astype(np.float64), _LEAST))
        scores = np.take_along_axis(probabilities, order, 1).astype(np.float32)
        self._parts.append((true.astype(np.int64), order, scores, losses))
        self._files += files

    def compute(self) -> ClassMetrics:
        """Judge everything that was added."""
        size, called = len(self.class_names), len(self.called_names)
        width = min(MOST, called)
        empty = (np.zeros(0, np.int64), np.zeros((0, width), np.int64), np.zeros((0, width), np.float32), np.zeros(0))
        true, best, scores, losses = (
            np.concatenate(columns) for columns in zip(*(self._parts or [empty]), strict=True)
        )  # fmt: skip
        counts = np.bincount(true * called + best[:, 0], minlength=size * called).reshape(size, called)
        in_top5 = np.bincount(true[(best == true[:, None]).any(1)], minlength=size)
        loss = float(losses.mean()) if len(losses) else float("nan")
        return ClassMetrics(
            self.class_names, self.called_names, counts.astype(np.int64), in_top5.astype(np.int64), loss, true, best,
            scores, tuple(self._files),
        )  # fmt: skip


def _share(part: npt.NDArray[np.integer], whole: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
