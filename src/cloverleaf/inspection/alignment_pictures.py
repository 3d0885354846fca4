"""How alignment is drawn: clouds of features in the plane of their largest variance, and how alike the levels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, MUTED, SEQUENTIAL, colour_of
from cloverleaf.inspection.alignment import Passed
from cloverleaf.inspection.implicit_pictures import TITLE
from cloverleaf.inspection.pictures import short

_POINTS = 700  # of a cloud that are drawn
_MATRICES = {
    "kernel_alignment": "kernel alignment",
    "cka": "CKA (centred)",
    "distance": "centroid distance / radius",
}


def plot_alignment(
    labels: Sequence[str], passed: Sequence[Passed], facts: Mapping[str, Any], path: Path, *, title: str
) -> None:
    """Clouds before and after, and below them the levels beside each other where there are several.

    Levels of equal width share one plane, which is that of the largest variance of all their clouds together; others
    have their own.
    """
    shared = len({one.before.shape[1] for one in passed}) == 1 and len(passed) > 1
    same_width = all(one.before.shape[1] == one.after.shape[1] for one in passed)
    matrices = _matrices(facts)
    clouds = (2 if shared else len(passed)) if same_width else 0
    heights = [3.4] * bool(clouds) + [2.8] * bool(matrices)
    if not heights:
        return
    width = max(3.3 * clouds, 4.6 * len(matrices), 0.088 * len(title))
    with figure(path, width, sum(heights) + 0.3) as drawing:
        parts = drawing.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        if clouds:
            _draw_clouds(parts[0], labels, passed, shared)
        if matrices:
            _draw_matrices(parts[-1], labels, matrices)
        drawing.suptitle(title, **TITLE)


def _matrices(facts: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Title and numbers before and after of what has numbers."""
    sides = facts.get("between_levels", {})
    found = []
    for key, text in _MATRICES.items():
        before, after = (np.array(sides[side][key] if sides else [], dtype=float) for side in ("before", "after"))
        if any(np.isfinite(one[~np.eye(len(one), dtype=bool)]).any() for one in (before, after) if len(one)):
            found.append((text, before, after))
    return found


def _draw_clouds(drawing: Any, labels: Sequence[str], passed: Sequence[Passed], shared: bool) -> None:
    if shared:
        before, after = drawing.subplots(1, 2, sharex=True, sharey=True)
        plane = _Plane([x for one in passed for x in (one.before, one.after)])
        for axis, side in ((before, "before"), (after, "after")):
            for k, (label, one) in enumerate(zip(labels, passed, strict=True)):
                _draw_cloud(axis, plane(getattr(one, side)), colour_of(k), label)
            axis.set_title(side)
            plane.name(axis)
        after.legend(loc="best", markerscale=3)
        return
    for k, (axis, label, one) in enumerate(
        zip(drawing.subplots(1, len(passed), squeeze=False)[0], labels, passed, strict=True)
    ):
        plane = _Plane([one.before, one.after])
        _draw_cloud(axis, plane(one.before), MUTED, "before")
        _draw_cloud(axis, plane(one.after), colour_of(k), "after")
        axis.set_title(label)
        plane.name(axis)
        axis.legend(loc="best", markerscale=3)


class _Plane:
    """The plane of the largest variance of several clouds together."""

    def __init__(self, clouds: Sequence[Tensor]) -> None:
        joined = torch.cat([one.double() for one in clouds])
        self.mean = joined.mean(0)
        covariance = torch.cov((joined - self.mean).T)
        values, vectors = torch.linalg.eigh(torch.atleast_2d(covariance))
        self.axes = vectors[:, -2:].flip(1)
        self.share = (values.flip(0)[:2] / values.sum().clamp(min=1e-30)).tolist()

    def __call__(self, x: Tensor) -> Any:
        return ((x.double() - self.mean) @ self.axes).numpy()

    def name(self, axis: Any) -> None:
        axis.set_xlabel(f"1st component ({self.share[0]:.0%} of the variance)")
        if len(self.share) > 1:
            axis.set_ylabel(f"2nd component ({self.share[1]:.0%})")


def _draw_cloud(axis: Any, points: Any, colour: str, label: str) -> None:
    chosen = points[np.linspace(0, len(points) - 1, min(len(points), _POINTS)).round().astype(int)]
    if points.shape[1] < 2:
        chosen, points = (np.column_stack([one, np.zeros(len(one))]) for one in (chosen, points))
    axis.scatter(*chosen.T, s=4, color=colour, alpha=0.35, linewidths=0, label=label, rasterized=True)
    axis.plot(*points.mean(0), "o", color=colour, markeredgecolor="white", markersize=9, zorder=3)


def _draw_matrices(drawing: Any, labels: Sequence[str], matrices: Sequence[tuple[str, Any, Any]]) -> None:
    """In one row, before and after beside each other."""
    axes = drawing.subplots(1, 2 * len(matrices), squeeze=False, sharey=True)[0]
    across, down = [label.removeprefix("stride ") for label in labels], list(labels)
    if max(map(len, across)) > 4:
        across = [str(k + 1) for k in range(len(labels))]
        down = [f"{label} ({k})" for label, k in zip(labels, across, strict=True)]
    for k, (text, *pair) in enumerate(matrices):
        most = max(1.0, *(float(np.nanmax(one)) for one in pair)) if "distance" in text else 1.0
        for axis, side, matrix in zip(axes[2 * k : 2 * k + 2], ("before", "after"), pair, strict=True):
            axis.imshow(np.ma.masked_invalid(matrix), cmap=SEQUENTIAL, vmin=0, vmax=most)
            axis.grid(visible=False)
            axis.set_xticks(range(len(labels)), across)
            axis.set_yticks(range(len(labels)), down)
            for i, j in zip(*np.nonzero(np.isfinite(matrix)), strict=True):
                tone = "white" if matrix[i, j] > 0.6 * most else INK
                number = short(matrix[i, j]) if matrix[i, j] < 10 else f"{matrix[i, j]:.0f}"
                axis.text(j, i, number, ha="center", va="center", fontsize=8, color=tone)
            axis.set_title(f"{text}\n{side}", fontsize=9)
