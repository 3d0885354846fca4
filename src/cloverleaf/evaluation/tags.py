"""Image-level labels: average precision and F1 of each tag, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.chance import chance_precision
from cloverleaf.evaluation.coco import finite_or_none

THRESHOLD = 0.5
"""Probability from which an image is said to have a tag, in F1, in text and on pictures."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TagMetrics:
    """Result of one evaluation of N images and T tags; what is undefined is NaN.

    Attributes:
        names: T names.
        images: N.
        counts: ``(T,)`` int64 images that have the tag.
        ap: ``(T,)`` average precision: the mean over the images that have the tag of the precision among those that are
            at least as probable, without interpolation; NaN for a tag that no image has.
        precision, recall, f1: ``(T,)`` at `threshold`; F1 is NaN where no image has the tag or is said to.
        micro_f1: of all tags of all images together.
        threshold: of the probability.
    """

    names: tuple[str, ...]
    images: int
    counts: npt.NDArray[np.int64]
    ap: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    micro_f1: float
    threshold: float = THRESHOLD

    @property
    def chance(self) -> Floats:
        """``(T,)`` average precision to be expected of probabilities without sense; NaN for a tag that no image has."""
        found = chance_precision(np.full(len(self.counts), self.images), self.counts)
        return np.where(self.counts > 0, found, np.nan)

    @property
    def values(self) -> dict[str, float]:
        """``tag_mAP``: mean average precision of the tags that occur; ``tag_F1``: micro F1; ``tag_F1_macro``: mean F1
        of the tags that occur; ``tag_chance``: the mAP to be expected of probabilities without sense."""
        occurs = self.counts > 0
        return {
            "tag_mAP": _mean(self.ap[occurs]),
            "tag_F1": self.micro_f1,
            "tag_F1_macro": _mean(self.f1[occurs]),
            "tag_chance": _mean(self.chance[occurs]),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        columns = (self.names, self.counts.tolist(), self.ap, self.precision, self.recall, self.f1)
        return {
            "threshold": self.threshold,
            "images": self.images,
            "tags": [
                {
                    "name": name,
                    "images": count,
                    "AP": finite_or_none(ap),
                    "precision": finite_or_none(precision),
                    "recall": finite_or_none(recall),
                    "f1": finite_or_none(f1),
                }
                for name, count, ap, precision, recall, f1 in zip(*columns, strict=True)
            ],
        }


def tag_metrics(
    probabilities: npt.NDArray[np.floating[Any]],
    true: npt.NDArray[Any],
    names: Sequence[str],
    *,
    threshold: float = THRESHOLD,
) -> TagMetrics:
    """Judge what was said of N images; average precision is that of torchmetrics.

    Args:
        probabilities: ``(N, T)`` in [0, 1].
        true: ``(N, T)`` 1 where the image has the tag, else 0.
        names: T names.
        threshold: an image is said to have a tag whose probability is at least this.
    """
    has = np.asarray(true) > 0.5
    said = np.asarray(probabilities) >= threshold
    right, counts, called = (has & said).sum(0), has.sum(0), said.sum(0)
    all_right, all_either = int(right.sum()), int(counts.sum() + called.sum())
    return TagMetrics(
        names=tuple(names),
        images=len(has),
        counts=counts.astype(np.int64),
        ap=_average_precisions(np.asarray(probabilities, np.float32), has),
        precision=_share(right, called),
        recall=_share(right, counts),
        f1=_share(2 * right, counts + called),
        micro_f1=2 * all_right / all_either if all_either else float("nan"),
        threshold=threshold,
    )


def _average_precisions(probabilities: npt.NDArray[np.float32], has: npt.NDArray[np.bool_]) -> Floats:
    """``(T,)``, NaN for tags that do not occur."""
    values = np.full(has.shape[1], np.nan)
    occurs = np.flatnonzero(has.any(0)) if len(has) else np.zeros(0, np.intp)
    if not len(occurs):
        return values
    import torch
    from torchmetrics.functional.classification import multilabel_average_precision

    scores = torch.from_numpy(np.nan_to_num(probabilities[:, occurs]))
    truth = torch.from_numpy(has[:, occurs].astype(np.int64))
    found = multilabel_average_precision(scores, truth, num_labels=len(occurs), average="none", validate_args=False)
    values[occurs] = found.double().reshape(-1).numpy()
    return values


def _share(part: npt.NDArray[np.integer], whole: npt.NDArray[np.integer]) -> Floats:
    """NaN where the whole is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
