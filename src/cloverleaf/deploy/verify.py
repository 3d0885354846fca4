"""Does an exported file compute what the model computes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.data.procedural.individuals import make_individuals
from cloverleaf.data.procedural.scene import make_scene
from cloverleaf.deploy.suppression import Suppression
from cloverleaf.errors import ExportError
from cloverleaf.ops.iou import pairwise_iou

TOLERANCE = 1e-4
_IOU_TOLERANCE = 1e-3  # what boxes that differ by rounding may make of the IoU of small ones


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest differences between a file and the model that it was made from.

    Attributes:
        boxes: of a coordinate, relative to the long side of the input (to the coordinate itself where that is larger).
        scores: of a score or probability.
        pixels: of a coordinate, in input pixels.
        shapes: the inputs that were compared.
        detections: of the suppression inside, all of them accounted for; None where there is none.
        embeddings: of a value of an embedding, relative to the largest of its map where that is above 1; None where
            there are none.
    """

    boxes: float
    scores: float
    pixels: float
    shapes: tuple[tuple[int, ...], ...] = ()
    detections: int | None = None
    embeddings: float | None = None

    def merged(self, other: Parity) -> Parity:
        """The larger differences of both, and all that they compared."""
        found = [count for count in (self.detections, other.detections) if count is not None]
        return Parity(
            max(self.boxes, other.boxes),
            max(self.scores, other.scores),
            max(self.pixels, other.pixels),
            (*self.shapes, *other.shapes),
            sum(found) if found else None,
            max(maps) if (maps := [e for e in (self.embeddings, other.embeddings) if e is not None]) else None,
        )


def sample_images(batch: int, size_hw: tuple[int, int], seed: int = 0) -> Tensor:
    """Scenes of the embedded dataset as network input: ``(B, 3, H, W)`` float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    people = make_individuals(seed, 2)
    scenes = np.stack([make_scene(rng, people, size_hw).image for _ in range(batch)])
    return torch.from_numpy(scenes).permute(0, 3, 1, 2).float().div(255).contiguous()


def compare_dense(expected: tuple[Tensor, Tensor], found: Sequence[npt.NDArray[Any]], side: int) -> Parity:
    """Every box and every score of a file with those of the model.

    Args:
        expected: boxes ``(B, N, 4)`` and scores ``(B, N, K)`` of the model.
        found: the same of the file.
        side: long side of the input in pixels.

    Raises:
        ExportError: another shape, or a difference above `TOLERANCE`.
    """
    boxes, scores = (torch.from_numpy(array) for array in found)
    if boxes.shape != expected[0].shape or scores.shape != expected[1].shape:
        raise ExportError(
            "the exported model has outputs of another shape",
            f"expected {tuple(expected[0].shape)} and {tuple(expected[1].shape)}, found {tuple(boxes.shape)} and "
            f"{tuple(scores.shape)}",
            _REPORT,
        )
    pixels = (boxes - expected[0]).abs()
    relative = pixels / expected[0].abs().clamp(min=side)
    return _accept(_largest(relative), _largest((scores - expected[1]).abs()), _largest(pixels))


def compare_probabilities(expected: Tensor, found: Sequence[npt.NDArray[Any]]) -> Parity:
    """Every probability ``(B, K)`` of a file with those of the model.

    Raises:
        ExportError: another shape, or a difference above `TOLERANCE`.
    """
    [probabilities] = (torch.from_numpy(array) for array in found)
    if probabilities.shape != expected.shape:
        raise ExportError(
            "the exported model has an output of another shape",
            f"expected {tuple(expected.shape)}, found {tuple(probabilities.shape)}",
            _REPORT,
        )
    return _accept(0.0, _largest((probabilities - expected).abs()), 0.0)


def compare_further(expected: Sequence[Tensor], found: Sequence[npt.NDArray[Any]]) -> Parity:
    """What a file for several tasks gives beside boxes with that of the model.

    Args:
        expected: probabilities of tags ``(B, T)``, and embeddings per level ``(B, D, H_l, W_l)``, as far as there are
            some.
        found: the same of the file.

    Raises:
        ExportError: another shape, or a difference above `TOLERANCE`.
    """
    total = Parity(0.0, 0.0, 0.0)
    for values, array in zip(expected, map(torch.from_numpy, found), strict=True):
        if values.shape != array.shape:
            raise ExportError(
                "the exported model has outputs of another shape",
                f"expected {tuple(values.shape)}, found {tuple(array.shape)}",
                _REPORT,
            )
        difference = _largest((array - values).abs())
        if values.dim() == 2:
            total = total.merged(_accept(0.0, difference, 0.0))
            continue
        difference /= max(_largest(values.abs()), 1.0)
        if not difference <= TOLERANCE:  # also where it is NaN
            raise ExportError(
                "the exported model does not compute what the model computes",
                f"embeddings differ by up to {difference:.2e}; {TOLERANCE:.0e} is allowed",
                _REPORT,
            )
        total = total.merged(Parity(0.0, 0.0, 0.0, embeddings=difference))
    return total


def compare_detections(
    expected: tuple[Tensor, Tensor], found: Sequence[npt.NDArray[Any]], suppression: Suppression, side: int
) -> Parity:
    """The detections of a file with the predictions of the model before suppression.

    Rounding may turn a decision that hangs by a thread, and with it others, so this does not compare with a second
    suppression. It asks of each image what makes its detections the right ones: each is a prediction of the model with
    its best class; no two of a class overlap by more than the threshold; and every other prediction above the
    confidence overlaps by more than the threshold with a better detection of its class, or is worse than all D.

    Args:
        expected: boxes ``(B, N, 4)`` and scores ``(B, N, K)`` of the model.
        found: boxes ``(B, D, 4)``, scores ``(B, D)``, labels ``(B, D)`` and counts ``(B,)`` of the file.
        suppression: the thresholds inside.
        side: long side of the input in pixels.

    Raises:
        ExportError: one of this does not hold.
    """
    boxes, scores, labels, counts = (torch.from_numpy(array) for array in found)
    parity = Parity(0.0, 0.0, 0.0, detections=0)
    for image, count in enumerate(counts.tolist()):
        kept = _Kept(boxes[image, :count], scores[image, :count], labels[image, :count])
        if scores[image, count:].any() or (labels[image, count:] != -1).any() or (kept.scores.diff() > 0).any():
            raise _wrong(image, "its detections are not in order, or the places after them are not empty")
        parity = parity.merged(_check_image(image, expected[0][image], expected[1][image], kept, suppression, side))
    return parity


@dataclass(frozen=True, slots=True)
class _Kept:
    """The n detections of an image: boxes ``(n, 4)``, scores ``(n,)``, labels ``(n,)``."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def _check_image(image: int, boxes: Tensor, scores: Tensor, kept: _Kept, suppression: Suppression, side: int) -> Parity:
    """What `compare_detections` promises, for one image."""
    best = scores.amax(1)
    rows = (best > suppression.confidence - TOLERANCE).nonzero()[:, 0]
    boxes, scores, best = boxes[rows], scores[rows], best[rows]
    parity, matched = _match(image, boxes, scores, best, kept, side)

    same = kept.labels[:, None] == kept.labels
    overlap = pairwise_iou(kept.boxes, kept.boxes).masked_fill(~same, 0).fill_diagonal_(0)
    if (overlap > suppression.iou + _IOU_TOLERANCE).any():
        raise _wrong(image, f"two detections of a class overlap by {float(overlap.max()):.4f}")

    full = len(kept.scores) == suppression.max_detections
    floor = float(kept.scores.min()) if full else suppression.confidence
    left = best > floor + TOLERANCE
    left[matched] = False
    left &= (boxes[:, 2:] - boxes[:, :2]).amin(1) > TOLERANCE * side  # thinner ones may have no area in the file
    others, values = boxes[left], scores[left]
    if not len(others):
        return parity
    if not len(kept.scores):
        raise _wrong(image, f"{len(others)} predictions above the confidence are missing")
    own_class = values[:, kept.labels] >= best[left][:, None] - TOLERANCE
    better = kept.scores >= best[left][:, None] - TOLERANCE
    near = pairwise_iou(others, kept.boxes) > suppression.iou - _IOU_TOLERANCE
    missing = int((~(own_class & better & near).any(1)).sum())
    if missing:
        raise _wrong(image, f"{missing} predictions that nothing suppresses are missing")
    return parity


def _match(image: int, boxes: Tensor, scores: Tensor, best: Tensor, kept: _Kept, side: int) -> tuple[Parity, Tensor]:
    """The row of every detection among the predictions, and how far it is from it."""
    if not len(kept.scores):
        return Parity(0.0, 0.0, 0.0, detections=0), torch.zeros(0, dtype=torch.int64)
    if not len(boxes):
        raise _wrong(image, "it has detections where the model has none")
    scale = boxes.abs().amax(1).clamp(min=side)
    distance = torch.cdist(boxes, kept.boxes, p=float("inf")) / scale[:, None]
    value = scores[:, kept.labels]
    difference = (value - kept.scores).abs()
    not_best = (best[:, None] - value).clamp(min=0)
    error, row = torch.maximum(torch.maximum(distance, difference), not_best).min(0)
    at = torch.arange(len(row))
    if len(row.unique()) < len(row) and not error.max() > TOLERANCE:
        raise _wrong(image, "two detections are one prediction of the model")
    parity = _accept(
        _largest(distance[row, at]), _largest(difference[row, at]), _largest((boxes[row] - kept.boxes).abs())
    )
    if error.max() > TOLERANCE:
        raise _wrong(image, "a detection does not have the best class of its prediction")
    return replace(parity, detections=len(row)), row


def _largest(values: Tensor) -> float:
    """The maximum, 0 of nothing; NaN where there is one."""
    return float(values.max()) if values.numel() else 0.0


def _accept(boxes: float, scores: float, pixels: float) -> Parity:
    if not (boxes <= TOLERANCE and scores <= TOLERANCE):  # also where they are NaN
        raise ExportError(
            "the exported model does not compute what the model computes",
            f"boxes differ by up to {boxes:.2e} of the long side ({pixels:.2e} px), scores by {scores:.2e}; "
            f"{TOLERANCE:.0e} is allowed",
            _REPORT,
        )
    return Parity(boxes, scores, pixels)


_REPORT = "no file was left behind; report it with the model's name and the versions of torch and onnxruntime"


def _wrong(image: int, why: str) -> ExportError:
    return ExportError("the suppression in the exported file is wrong", f"test image {image}: {why}", _REPORT)
