"""What implicit knowledge does to the features that pass it: the statistics of kernel-space alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cloverleaf.inspection.knowledge import Array, Knowledge
from cloverleaf.inspection.subject import Subject
from cloverleaf.ops.resize import pool_to
from cloverleaf.ops.similarity import (
    LEAST_EXAMPLES,
    effective_dimension,
    kernel_alignment,
    normalised,
    unbiased_hsic,
)

_CELLS = 4096  # of a map in all images, evenly chosen, that statistics and pictures are made of
_COMPARED = 1024  # of the coarsest map, in which levels are compared
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Passed:
    """Features of one module's map, as they come and as they go.

    Attributes:
        before, after: (n, C), (n, C') one row for each cell.
        before_maps, after_maps: (N, C, H, W), (N, C', H, W) at the size of the coarsest map of the place.
    """

    before: Tensor
    after: Tensor
    before_maps: Tensor
    after_maps: Tensor

    @property
    def finite(self) -> bool:
        """Whether all features are numbers."""
        return bool(self.before.isfinite().all() and self.after.isfinite().all())


@dataclass(frozen=True, slots=True)
class Cloud:
    """Statistics of the features of a map.

    Attributes:
        mean: over channels and cells.
        std: over the cells, root of the mean square over channels.
        norm: of a cell's features, mean over the cells.
        centroid_norm: of the mean over the cells.
        effective_dimension: see `cloverleaf.ops.similarity.effective_dimension`.
        channels: C.
    """

    mean: float
    std: float
    norm: float
    centroid_norm: float
    effective_dimension: float | None
    channels: int


@dataclass(frozen=True, slots=True)
class Between:
    """How near the levels of a place are to each other, (L, L) each; NaN where it is not defined.

    Attributes:
        kernel_alignment: of the same cells, not centred: shifts count.
        cka: centred and unbiased: shifts do not count.
        distance: of centroids over the root of the mean of both clouds' squared radii; of maps of equal width only.
        cosine: of centroids, of maps of equal width only.
    """

    kernel_alignment: Array
    cka: Array
    distance: Array
    cosine: Array


@torch.no_grad()
def record(subject: Subject, modules: Sequence[Knowledge]) -> dict[str, Passed]:
    """What passes the modules of one place, by path, for all images of the subject."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [subject.model.get_submodule(one.path).register_forward_hook(_keeping(one.path, seen)) for one in modules]
    found: dict[str, list[Passed]] = {}
    try:
        for images in subject.images.split(_BATCH):
            subject.model(images.to(subject.device))
            share = -(-_CELLS * len(images) // len(subject.images))
            least = min((before.shape[2:] for before, _ in seen.values()), key=lambda size: size.numel(), default=None)
            for path, (before, after) in seen.items():
                assert least is not None
                size_hw = (least[0], least[1])
                cells = (_evenly(_rows(before), share), _evenly(_rows(after), share))
                found.setdefault(path, []).append(Passed(*cells, pool_to(before, size_hw), pool_to(after, size_hw)))
    finally:
        for handle in handles:
            handle.remove()
    return {path: _joined(parts) for path, parts in found.items()}


def _keeping(path: str, seen: dict[str, tuple[Tensor, Tensor]]) -> Any:
    def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[path] = (_as_map(inputs[0]), _as_map(output))

    return keep


def _joined(parts: Sequence[Passed]) -> Passed:
    return Passed(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("before", "after", "before_maps", "after_maps")
        )
    )


def cloud(x: Tensor) -> Cloud:
    """Of (n, C)."""
    x = x.double()
    centroid, dimension = x.mean(0), float(effective_dimension(x))
    return Cloud(
        float(x.mean()), float(x.var(0, unbiased=False).mean().sqrt()), float(x.norm(dim=1).mean()),
        float(centroid.norm()), None if np.isnan(dimension) else dimension, x.shape[1],
    )  # fmt: skip


def between(cells: Sequence[Tensor], maps: Sequence[Tensor]) -> Between:
    """Of the levels' own cells (n_l, C_l), and of their maps (N, C_l, H, W) of equal size."""
    examples = [_evenly(_rows(one), _COMPARED).double() for one in maps]
    count = len(cells)
    alignment, distance, cosine = (np.full((count, count), np.nan) for _ in range(3))
    centroids = [one.double().mean(0) for one in cells]
    radii = [one.double().var(0, unbiased=False).sum() for one in cells]
    for i in range(count):
        for j in range(count):
            alignment[i, j] = kernel_alignment(examples[i], examples[j])
            if len(centroids[i]) == len(centroids[j]):
                radius = ((radii[i] + radii[j]) / 2).sqrt()
                distance[i, j] = (centroids[i] - centroids[j]).norm() / radius
                cosine[i, j] = torch.cosine_similarity(centroids[i], centroids[j], dim=0)
    enough = len(examples[0]) >= LEAST_EXAMPLES
    cka = normalised(unbiased_hsic(examples)).numpy() if enough else np.full((count, count), np.nan)
    return Between(alignment, cka, distance, cosine)


def facts_of(labels: Sequence[str], values: Sequence[Passed]) -> dict[str, Any]:
    """All statistics of a place as plain containers."""
    levels = [
        {"label": label, "cells": len(one.before), "centroid_moves": _move(one),
         "before": asdict(cloud(one.before)), "after": asdict(cloud(one.after))}
        for label, one in zip(labels, values, strict=True)
    ]  # fmt: skip
    if len(values) == 1:
        return {"levels": levels}
    sides = {"before": between([one.before for one in values], [one.before_maps for one in values]),
             "after": between([one.after for one in values], [one.after_maps for one in values])}  # fmt: skip
    return {
        "levels": levels,
        "between_levels": {
            side: {name: _plain(matrix) for name, matrix in asdict(found).items()} for side, found in sides.items()
        },
    }


def _move(one: Passed) -> float | None:
    """Length of the way of the centroid over the radius of the cloud before; None where the width changes."""
    if one.before.shape != one.after.shape:
        return None
    before, after = one.before.double(), one.after.double()
    radius = before.var(0, unbiased=False).sum().sqrt()
    return float((after.mean(0) - before.mean(0)).norm() / radius) if radius > 0 else None


def _as_map(x: Tensor) -> Tensor:
    x = x.detach().cpu().float()
    return x if x.dim() == 4 else x.flatten(1)[..., None, None]


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N H W, C)."""
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


def _evenly(rows: Tensor, most: int) -> Tensor:
    count = len(rows)
    return rows if count <= most else rows[torch.linspace(0, count - 1, most).round().long()]


def _plain(matrix: npt.NDArray[Any]) -> list[list[float | None]]:
    """JSON has no NaN."""
    return [[round(float(value), 6) if np.isfinite(value) else None for value in row] for row in matrix]
