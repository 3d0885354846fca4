"""The anchor check before training: do the anchors fit the objects, and if not, which would?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Sizes = npt.NDArray[np.floating]

_ENOUGH_RECALL = 0.98
_MIN_SIDE_PX = 2.0
_MOST_CHECKED = 200_000  # labels sampled for the check, which then errs by less than 0.001
_MOST_FITTED = 10_000  # labels sampled for fitting, which looks at them a thousand times
_JITTER = 0.1  # of the image size, as training scales images


class LabelledSizes(Protocol):
    """What the check reads of a dataset index."""

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float64]:
        """``(M, 4)`` pixels of the stored images."""

    @property
    def object_offsets(self) -> npt.NDArray[np.int64]:
        """``(N + 1,)``: objects of image i are rows offsets[i] to offsets[i + 1]."""

    @property
    def sizes_hw(self) -> npt.NDArray[np.int32]:
        """``(N, 2)`` image sizes."""

    @property
    def crowd(self) -> npt.NDArray[np.bool_]:
        """``(M,)`` regions that never train."""


@dataclass(frozen=True, slots=True)
class AnchorFit:
    """How well anchors fit label sizes; a label and an anchor fit when no side differs by `anchor_t` or more.

    Attributes:
        bpr: best possible recall, the share of labels with at least one fitting anchor.
        anchors_above_threshold: mean number of fitting anchors per label.
        fitness: mean over labels of the side ratio (at most 1) to the best anchor, 0 where it does not fit.
    """

    bpr: float
    anchors_above_threshold: float
    fitness: float


def check_anchors(wh_px: Sizes, anchors_px: Sizes, anchor_t: float) -> AnchorFit:
    """Measure anchors as the published YOLOv7 does.

    Args:
        wh_px: ``(M, 2)`` label sizes in network-input pixels; M may be 0 (all numbers are then 0).
        anchors_px: ``(..., 2)`` anchors.
        anchor_t: largest side ratio that fits.
    """
    if not len(wh_px):
        return AnchorFit(0.0, 0.0, 0.0)
    agreement = _agreement(wh_px, anchors_px)
    fits = agreement > 1 / anchor_t
    best = agreement.max(1)
    return AnchorFit(
        bpr=float(fits.any(1).mean()),
        anchors_above_threshold=float(fits.sum(1).mean()),
        fitness=float((best * (best > 1 / anchor_t)).mean()),
    )


def fit_anchors(
    wh_px: Sizes, num: int, anchor_t: float, rng: np.random.Generator, generations: int = 1000
) -> npt.NDArray[np.float64]:
    """Anchors for these labels: k-means on sizes, then an evolution that keeps whatever raises the fitness.

    Args:
        wh_px: ``(M, 2)`` label sizes in network-input pixels; those below 2 px on both sides are left out.
        num: how many anchors.
        anchor_t: largest side ratio that fits.
        rng: source of all randomness.
        generations: mutations tried.

    Returns:
        ``(num, 2)`` pixels, sorted by area.

    Raises:
        ValueError: fewer than `num` different sizes remain.
    """
    wh = np.asarray(wh_px, dtype=np.float64)
    wh = wh[(wh >= _MIN_SIDE_PX).any(1)]
    if len(np.unique(wh, axis=0)) < num:
        raise ValueError(f"{num} anchors cannot be fitted to {len(np.unique(wh, axis=0))} different sizes")
    if len(wh) > _MOST_FITTED:
        wh = wh[rng.choice(len(wh), _MOST_FITTED, replace=False)]
    anchors = _k_means(wh, num, rng)
    best = check_anchors(wh, anchors, anchor_t).fitness
    for _ in range(generations):
        mutant = np.maximum(anchors * _mutation(anchors.shape, rng), _MIN_SIDE_PX)
        fitness = check_anchors(wh, mutant, anchor_t).fitness
        if fitness > best:
            best, anchors = fitness, mutant
    return anchors[np.argsort(anchors.prod(1), kind="stable")]


def label_sizes(
    index: LabelledSizes, image_size: int, rng: np.random.Generator | None = None
) -> npt.NDArray[np.float64]:
    """``(M, 2)`` label (width, height) in pixels when the longer side of every image is `image_size`.

    Args:
        index: the labels.
        image_size: network-input size.
        rng: where given, every image is scaled by a further random factor in [0.9, 1.1].
    """
    scale = image_size / np.maximum(np.asarray(index.sizes_hw, dtype=np.float64).max(1), 1)
    if rng is not None:
        scale = scale * rng.uniform(1 - _JITTER, 1 + _JITTER, len(scale))
    boxes = np.asarray(index.boxes_xyxy)
    return (boxes[:, 2:] - boxes[:, :2]) * np.repeat(scale, np.diff(index.object_offsets))[:, None]


def resolve_anchors(
    index: LabelledSizes, anchors_px: Tensor, *, image_size: int, anchor_t: float, seed: int
) -> tuple[Tensor, str]:
    """The anchors to train with: the given ones, unless too few labels fit them and fitted ones do better.

    Args:
        index: the training labels.
        anchors_px: ``(L, A, 2)`` anchors of the model, finest level first.
        image_size: network-input size.
        anchor_t: largest side ratio that fits.
        seed: of the label jitter and of the fitting.

    Returns:
        ``(L, A, 2)`` float32 anchors, and a sentence that says what was found and done.
    """
    rng = np.random.default_rng(seed)
    sizes = label_sizes(index, image_size, rng)
    sizes = sizes[np.isfinite(sizes).all(1) & (sizes > 0).all(1) & ~np.asarray(index.crowd)]
    if len(sizes) > _MOST_CHECKED:
        sizes = sizes[rng.choice(len(sizes), _MOST_CHECKED, replace=False)]
    given = anchors_px.detach().cpu().double().numpy()
    before = check_anchors(sizes, given, anchor_t)
    found = f"best possible recall {before.bpr:.4f}, {before.anchors_above_threshold:.2f} anchors per label"
    if not len(sizes):
        return anchors_px, "kept, there are no labels to compare them with"
    if before.bpr >= _ENOUGH_RECALL:
        return anchors_px, f"kept ({found})"
    num = given.shape[0] * given.shape[1]
    if len(np.unique(sizes[(sizes >= _MIN_SIDE_PX).any(1)], axis=0)) < num:
        return anchors_px, f"kept ({found}); too few different labels to fit {num} anchors"
    fitted = fit_anchors(sizes, num, anchor_t, rng)
    after = check_anchors(sizes, fitted, anchor_t)
    if after.bpr <= before.bpr:
        return anchors_px, f"kept ({found}); fitted ones reach only {after.bpr:.4f}"
    text = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in fitted)
    report = f"fitted to the labels, best possible recall {before.bpr:.4f} -> {after.bpr:.4f}: {text}"
    return torch.from_numpy(fitted.reshape(given.shape)).to(anchors_px), report


def _agreement(wh_px: Sizes, anchors_px: Sizes) -> Sizes:
    """``(M, N)`` in (0, 1]: the worse of the two side ratios, each taken so that it is at most 1."""
    ratio = np.asarray(wh_px)[:, None] / np.asarray(anchors_px).reshape(-1, 2)
    with np.errstate(divide="ignore"):
        agreement: Sizes = np.minimum(ratio, 1 / ratio).min(2)
    return agreement


def _k_means(wh: Sizes, num: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    from scipy.cluster.vq import kmeans

    spread = wh.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    centres = kmeans(wh / spread, num, iter=30, seed=rng)[0] * spread
    if len(centres) < num:  # clusters ran empty: fill up with labels
        centres = np.concatenate((centres, wh[rng.choice(len(wh), num - len(centres), replace=False)]))
    return np.asarray(centres, dtype=np.float64)


def _mutation(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Factors near 1, not all of them 1."""
    factors = np.ones(shape)
    while (factors == 1).all():
        changed = rng.random(shape) < 0.9
        factors = np.clip(changed * rng.random() * rng.standard_normal(shape) * 0.1 + 1, 0.3, 3.0)
    return factors
