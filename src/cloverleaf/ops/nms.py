"""Greedy non-maximum suppression of a whole batch of dense predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms as _greedy_nms

# Greedy suppression never looks ahead, so the result of a prefix (by score) is a prefix of the result.
_FIRST_PREFIX = 2048


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    confidence: float,
    iou: float,
    multi_label: bool = False,
    class_agnostic: bool = False,
    classes: Sequence[int] | None = None,
    max_candidates: int = 30000,
    max_detections: int = 300,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The detections of every image, in the protocol of the published YOLOv7.

    Filtering and sorting run over the batch at once. The suppression itself is one kernel call per image, because it is
    quadratic in what it is given and images never suppress each other; it stops early once `max_detections` are found.
    Overlaps are computed in float64, so that keeping classes apart by an offset costs no precision.

    Args:
        boxes: ``(B, N, 4)`` corners.
        scores: ``(B, N, K)`` in [0, 1], objectness included. NaN is never detected, nor are boxes that are not finite
            or whose second corner does not lie right of and below the first.
        confidence: a (box, class) pair needs a score above it.
        iou: a box goes when its IoU with a better one is above it.
        multi_label: every class above `confidence` gives a candidate (as in evaluation), not only the best.
        class_agnostic: boxes suppress those of other classes too.
        classes: only these labels are detected; None for all. With one label per box the best class is chosen first.
        max_candidates: only so many best candidates of an image enter the suppression.
        max_detections: at most so many detections per image.

    Returns:
        Per image boxes ``(n, 4)``, scores ``(n,)`` and labels ``(n,)`` int64, by descending score (equal scores in the
        order of the predictions).
    """
    proper = boxes.isfinite().all(-1, keepdim=True) & (boxes[..., 2:] > boxes[..., :2]).all(-1, keepdim=True)
    scores = scores.masked_fill(~proper, -torch.inf)
    image, row, label, score = _candidates(scores, confidence, multi_label and scores.shape[-1] > 1, classes)
    order, counts = _best_of_each_image(image, score, boxes.shape[0], max_candidates)
    image, row, label, score = image[order], row[order], label[order], score[order]
    box = boxes[image, row]

    apart = _separate(box, label, class_agnostic)
    results = []
    for b, s, k, separated in zip(*(x.split(counts) for x in (box, score, label, apart)), strict=True):
        keep = _suppress(separated, s, iou, max_detections)
        results.append((b[keep], s[keep], k[keep]))
    return results


def _candidates(
    scores: Tensor, confidence: float, multi_label: bool, classes: Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(image, row, label, score) of what passes `confidence` and `classes`, in row-major order."""
    if multi_label:
        image, row, label = (scores > confidence).nonzero(as_tuple=True)
        score = scores[image, row, label]
    else:
        best, best_label = scores.max(-1)
        image, row = (best > confidence).nonzero(as_tuple=True)
        score, label = best[image, row], best_label[image, row]
    if classes is not None:
        wanted = torch.isin(label, torch.as_tensor(list(classes), dtype=label.dtype, device=label.device))
        image, row, label, score = image[wanted], row[wanted], label[wanted], score[wanted]
    return image, row, label, score


def _best_of_each_image(image: Tensor, score: Tensor, batch: int, most: int) -> tuple[Tensor, list[int]]:
    """Candidates by image and descending score (equal ones in the given order), at most `most` of an image; counts.

    `image` is ascending. One sort over the batch: non-negative floats compare like their bits.
    """
    key = (image << 32) - score.float().view(torch.int32)
    order = key.argsort(stable=True)
    counts = image.bincount(minlength=batch)
    rank = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    return order[rank < most], counts.clamp(max=most).tolist()


def _separate(box: Tensor, label: Tensor, class_agnostic: bool) -> Tensor:
    """The boxes, moved so that those of different labels cannot meet."""
    exact = box.to(torch.float32 if box.device.type == "mps" else torch.float64)
    if class_agnostic or not len(box):
        return exact
    extent = exact.max() - exact.min() + 1
    return exact + (label * extent)[:, None]


def _suppress(boxes: Tensor, scores: Tensor, iou: float, max_detections: int) -> Tensor:
    """Indices of the first `max_detections` survivors; the boxes come by descending score."""
    if len(boxes) > 2 * _FIRST_PREFIX:
        keep = _greedy_nms(boxes[:_FIRST_PREFIX], scores[:_FIRST_PREFIX].to(boxes.dtype), iou)
        if len(keep) >= max_detections:
            return keep[:max_detections]
    return _greedy_nms(boxes, scores.to(boxes.dtype), iou)[:max_detections]
