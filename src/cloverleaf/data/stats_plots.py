"""The overview picture of a dataset, for `data stats` and for the report of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cloverleaf.data.index import DetectionIndex
from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, SEQUENTIAL, class_colours, colour_of
from cloverleaf.drawing.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_CLASSES = 40
_MAX_POINTS = 6000
_MAX_LEGEND = 16


def draw_overview(indexes: Mapping[str, DetectionIndex], names: tuple[str, ...], path: Path) -> None:
    """Class counts, objects per image, box sides with the COCO limits, aspect ratios, box shapes and box centres."""
    colours = {split: colour_of(k) for k, split in enumerate(indexes)}
    with figure(path, 14, 8.2 + max(0, min(len(names), _MAX_CLASSES) - 16) * 0.12) as drawing:
        grid = drawing.subplots(2, 3)
        _classes(grid[0, 0], indexes, names, colours)
        _per_image(grid[0, 1], indexes, colours)
        _sides(grid[0, 2], indexes, colours)
        _aspects(grid[1, 0], indexes, colours)
        _shapes(grid[1, 1], indexes, names)
        _centres(grid[1, 2], indexes, drawing)
        objects, images = (sum(map(len, parts)) for parts in ((i.labels for i in indexes.values()), indexes.values()))
        drawing.suptitle(f"{objects:,} objects in {images:,} images", x=0.01, ha="left", fontweight="bold")


def _single(index: DetectionIndex) -> tuple[Any, Any]:
    keep = ~np.asarray(index.crowd)
    return np.asarray(index.boxes_xyxy)[keep], np.asarray(index.labels)[keep]


def _classes(
    axes: Axes, indexes: Mapping[str, DetectionIndex], names: tuple[str, ...], colours: Mapping[str, str]
) -> None:
    counts = {}
    for split, index in indexes.items():
        found = np.bincount(_single(index)[1], minlength=len(index.names))
        by_name = dict(zip(index.names, found.tolist(), strict=True))
        counts[split] = np.array([by_name.get(name, 0) for name in names])
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")[:_MAX_CLASSES]
    left = np.zeros(len(order))
    rows = np.arange(len(order))
    for split, values in counts.items():
        axes.barh(rows, values[order], left=left, color=colours[split], label=split, height=0.78)
        left += values[order]
    for row, value in enumerate(left):
        axes.annotate(f"{int(value):,}", (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    shown = printable(names)
    axes.set_yticks(rows, [shown[k] for k in order])
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    part = "" if len(order) == len(names) else f" ({len(order)} most frequent of {len(names)})"
    axes.set_title(f"Objects per class{part}")
    if len(counts) > 1:
        axes.legend(loc="lower right")


def _per_image(axes: Axes, indexes: Mapping[str, DetectionIndex], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    counts = {split: np.diff(index.object_offsets) for split, index in indexes.items()}
    most = max((int(values.max(initial=0)) for values in counts.values()), default=0)
    step = max(1, -(-(most + 1) // 40))
    bins = np.arange(0, most + 1 + step, step) - 0.5
    axes.hist(
        list(counts.values()), bins=bins.tolist(), stacked=True, color=[colours[split] for split in counts], rwidth=0.92
    )
    axes.set(title="Objects per image", xlabel="objects", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _sides(axes: Axes, indexes: Mapping[str, DetectionIndex], colours: Mapping[str, str]) -> None:
    sides = {split: np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)) for split, (boxes, _) in _all(indexes).items()}
    joined = np.concatenate(list(sides.values()))
    low, high = (1.0, 512.0) if len(joined) == 0 else (max(joined.min() * 0.9, 0.5), joined.max() * 1.1)
    bins = np.geomspace(min(low, 24), max(high, 128), 45)
    axes.hist(list(sides.values()), bins=bins.tolist(), stacked=True, color=[colours[split] for split in sides])
    axes.set_xscale("log")
    ticks = [tick for tick in (2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048, 4096) if bins[0] <= tick <= bins[-1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.margins(y=0.16)
    edges = [bins[0], 32, 96, bins[-1]]
    for limit in edges[1:3]:
        axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for k, name in enumerate(("small", "medium", "large")):
        share = ((joined >= edges[k]) & (joined < edges[k + 1])).mean() if len(joined) else 0.0
        place = float(np.sqrt(edges[k] * edges[k + 1]))
        text = f"{name}\n{100 * share:.0f} %"
        axes.text(place, 0.99, text, ha="center", va="top", fontsize=9, transform=axes.get_xaxis_transform())
    axes.set(title="Box side", xlabel="square root of width x height, pixels", ylabel="boxes")


def _aspects(axes: Axes, indexes: Mapping[str, DetectionIndex], colours: Mapping[str, str]) -> None:
    ratios = {split: _ratio(boxes) for split, (boxes, _) in _all(indexes).items()}
    span = max(
        (float(np.percentile(np.abs(np.log2(values)), 99.5)) for values in ratios.values() if len(values)), default=1
    )
    span = min(max(np.ceil(span), 1), 6)
    bins = np.exp2(np.linspace(-span, span, 49))
    axes.hist(list(ratios.values()), bins=bins.tolist(), stacked=True, color=[colours[split] for split in ratios])
    axes.set_xscale("log", base=2)
    ticks = [float(2**k) for k in range(-int(span), int(span) + 1)]
    axes.set_xticks(ticks, [f"1:{int(1 / tick)}" if tick < 1 else f"{int(tick)}:1" for tick in ticks])
    axes.set(title="Box shape", xlabel="width : height", ylabel="boxes")


def _ratio(boxes: Any) -> Any:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    return sides[:, 0] / sides[:, 1]


def _shapes(axes: Axes, indexes: Mapping[str, DetectionIndex], names: tuple[str, ...]) -> None:
    """Width against height, coloured by class."""
    rng = np.random.default_rng(0)
    table, shown = class_colours(len(names)), printable(names)
    parts, labels = [], []
    for index in indexes.values():
        boxes, own = _single(index)
        parts.append(boxes[:, 2:] - boxes[:, :2])
        labels.append(np.array([names.index(name) for name in index.names])[own] if len(own) else own)
    sides, joined = np.concatenate(parts), np.concatenate(labels).astype(int)
    counts = np.bincount(joined, minlength=len(names))
    chosen = rng.permutation(len(sides))[:_MAX_POINTS]
    x, y = sides[chosen].T
    axes.scatter(x, y, s=5 if len(chosen) > 2000 else 12, c=table[joined[chosen]] / 255.0, alpha=0.5, linewidths=0)
    if len(names) <= _MAX_LEGEND:
        for label in np.argsort(-counts, kind="stable").tolist():
            axes.scatter([], [], s=28, color=table[label] / 255.0, label=shown[label])
        axes.legend(loc="upper left", handletextpad=0.2, labelspacing=0.2)
    limit = float(np.percentile(sides, 99.9)) * 1.05 if len(sides) else 1.0
    axes.set(title="Width and height by class", xlabel="width, pixels", ylabel="height, pixels")
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")


def _centres(axes: Axes, indexes: Mapping[str, DetectionIndex], drawing: Any) -> None:
    """Where box centres are, as fractions of the image."""
    total = sum(len(index.labels) for index in indexes.values())
    cells = int(np.clip(np.sqrt(total / 4), 8, 40))
    heat = np.zeros((cells, cells))
    for index in indexes.values():
        boxes = np.asarray(index.boxes_xyxy)
        sizes = np.repeat(np.asarray(index.sizes_hw)[:, ::-1], np.diff(index.object_offsets), axis=0)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes
        heat += np.histogram2d(centres[:, 1], centres[:, 0], bins=cells, range=((0, 1), (0, 1)))[0]
    image = axes.imshow(heat, extent=(0, 1, 1, 0), cmap=SEQUENTIAL, interpolation="nearest", vmin=0)
    axes.grid(visible=False)
    drawing.colorbar(image, ax=axes, shrink=0.82, label="boxes")
    axes.set(title="Box centres", xlabel="x / width", ylabel="y / height")


def _all(indexes: Mapping[str, DetectionIndex]) -> dict[str, tuple[Any, Any]]:
    return {split: _single(index) for split, index in indexes.items()}
