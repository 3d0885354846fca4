"""How implicit knowledge is drawn: vectors beside their start, factors of outputs, boxes at rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import DIVERGING, INK, MUTED, PAPER, SEQUENTIAL, colour_of
from cloverleaf.inspection.boxes_at_rest import BoxesAtRest
from cloverleaf.inspection.knowledge import START_STD, Array, Knowledge, OutputNames

_MOST_COLUMNS = 16  # of a map of factors whose numbers and names can be read
_FILL = {"--": "none"}  # of marks, by the style of their line
TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 10.5, "fontweight": "bold", "color": INK}


def plot_vectors(place: Sequence[Knowledge], path: Path, *, title: str) -> None:
    """Values of one place, a column for each level: sorted above, as a histogram below, their start beside them."""
    with figure(path, max(2.6 * len(place) + 0.7, 0.088 * len(title)), 4.7) as drawing:
        axes = drawing.subplots(2, len(place), squeeze=False, sharey="row")
        for k, (one, (above, below)) in enumerate(zip(place, axes.T, strict=True)):
            values = np.sort(one.values.ravel())
            above.plot(np.arange(1, len(values) + 1), values, color=colour_of(k), label="learned")
            below.hist(values, bins=min(max(len(values) // 8, 12), 40), density=True, color=colour_of(k), alpha=0.75)
            if one.start is not None:
                ranks = (np.arange(len(values)) + 0.5) / len(values)
                start = stats.norm(one.start, START_STD)
                above.plot(
                    np.arange(1, len(values) + 1),
                    start.ppf(ranks),
                    "--",
                    color=MUTED,
                    lw=1.3,
                    label=f"start, {one.start:g} ± {START_STD}",
                )
                span = np.linspace(one.start - 4 * START_STD, one.start + 4 * START_STD, 120)
                below.plot(span, start.pdf(span), "--", color=MUTED, lw=1.3)
            above.set_title(f"{one.label}: {len(values)} values")
            above.set_xlabel("rank of the channel")
            below.set_xlabel(f"value (mean {values.mean():.3f}, std. {values.std():.3f})")
        axes[0, 0].set_ylabel("value")
        axes[1, 0].set_ylabel("density")
        axes[0, 0].legend(loc="upper left")
        drawing.suptitle(title, **TITLE)


def plot_factors(place: Sequence[tuple[Knowledge, OutputNames]], path: Path, *, title: str) -> None:
    """Values of one place on a head's outputs: a map per level, a row per anchor, a column per output."""
    names = place[0][1]
    count, rows = len(names.columns), len(names.rows)
    start = place[0][0].start or 0.0
    most = max(float(np.abs(one.values - start).max()) for one, _ in place) or START_STD
    readable = count <= _MOST_COLUMNS
    width = max(0.62 * count + 2.6, 0.088 * len(title)) if readable else 11
    with figure(path, width, len(place) * (0.34 * rows + 0.62) + 1.0) as drawing:
        axes = drawing.subplots(len(place), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (one, of_level) in zip(axes, place, strict=True):
            values = one.values.reshape(rows, count)
            image = axis.imshow(values, cmap=DIVERGING, vmin=start - most, vmax=start + most, aspect="auto")
            axis.grid(visible=False)
            axis.set_yticks(range(rows), [f"{row} px" for row in of_level.rows])
            axis.set_title(one.label)
            if readable:
                for (i, j), value in np.ndenumerate(values):
                    tone = "white" if abs(value - start) > 0.6 * most else INK
                    axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=tone)
            for edge in {
                2,
                count - _classes(names),
                count - _classes(names) - 1,
            }:  # boxes, objectness and classes apart
                axis.axvline(edge - 0.5, color="white", linewidth=2.5)
        ticks, labels = _column_ticks(names)
        axes[-1].set_xticks(ticks, labels, rotation=30 if max(map(len, labels)) > 10 else 0)
        axes[-1].set_xlabel("output")
        drawing.supylabel("anchor", fontsize=9.5, color=INK)
        bar = drawing.colorbar(image, ax=list(axes), shrink=min(1.0, 2.2 / len(place)), aspect=18)
        bar.set_label("factor" if start == 1 else "value")
        for edge in (start - START_STD, start + START_STD):
            bar.ax.axhline(edge, color=INK, linewidth=0.8)
        bar.ax.set_title("lines:\nstart ± 1 std.", fontsize=7, fontweight="normal", color=MUTED, loc="center")
        drawing.suptitle(title, **TITLE)


def _classes(names: OutputNames) -> int:
    return len(names.columns) - names.columns.index("obj") - 1


def _column_ticks(names: OutputNames) -> tuple[list[int], list[str]]:
    """All where they can be read; else the box, the objectness and some of the classes."""
    count, first = len(names.columns), len(names.columns) - _classes(names)
    shown = range(count) if count <= _MOST_COLUMNS else [*range(first), *range(first + 9, count, 10)]
    return list(shown), [
        names.columns[k] if k < first or count <= _MOST_COLUMNS else names.columns[k].removeprefix("class ")
        for k in shown
    ]


def plot_boxes_at_rest(levels: Sequence[BoxesAtRest], path: Path, *, title: str) -> None:
    """A column for each level: anchors and boxes around their centre above, where in the cell they lie below."""
    from matplotlib.lines import Line2D

    with figure(path, 3.1 * len(levels) + 0.5, 7.0) as drawing:
        axes = drawing.subplots(2, len(levels), squeeze=False)
        for one, (above, below) in zip(levels, axes.T, strict=True):
            _draw_sides(above, one)
            _draw_centres(below, one)
            above.set_title(f"stride {one.stride}: sides")
            below.set_title("centres in the cell")
        axes[0, 0].set_ylabel("y in px, from the centre")
        axes[1, 0].set_ylabel("y in px, from the middle of the cell")
        styles = ((":", "", "anchor"), ("--", "o", "convolution alone"), ("-", "o", "with implicit knowledge"))
        handles = [
            Line2D([], [], color=MUTED, linestyle=style, marker=mark, label=label, fillstyle=_FILL.get(style, "full"))
            for style, mark, label in styles
        ]
        drawing.legend(handles=handles, loc="outside lower center", ncols=3)
        drawing.suptitle(title, **TITLE)


def _draw_sides(axis: Any, one: BoxesAtRest) -> None:
    from matplotlib.patches import Rectangle

    for k, (anchor, alone, together) in enumerate(zip(one.anchors_px, one.alone, one.together, strict=True)):
        for (w, h), style, wide in ((anchor, ":", 1.2), (alone[2:], "--", 1.2), (together[2:], "-", 1.8)):
            axis.add_patch(
                Rectangle((-w / 2, -h / 2), w, h, fill=False, edgecolor=colour_of(k), linestyle=style, linewidth=wide)
            )
    sides = np.concatenate([one.anchors_px, one.alone[:, 2:], one.together[:, 2:]])
    _square_axis(axis, 0.54 * float(sides.max()))
    axis.set_xlabel("x in px, from the centre")


def _draw_centres(axis: Any, one: BoxesAtRest) -> None:
    from matplotlib.patches import Rectangle

    half = one.stride / 2
    axis.set_facecolor("white")
    axis.add_patch(Rectangle((-half, -half), 2 * half, 2 * half, facecolor=PAPER, edgecolor=MUTED, zorder=0))
    for k, (alone, together) in enumerate(zip(one.alone, one.together, strict=True)):
        axis.plot(*np.stack([alone[:2], together[:2]]).T, color=colour_of(k), linewidth=1.2)
        axis.plot(*alone[:2], "o", color=colour_of(k), markerfacecolor="white", markersize=6)
        axis.plot(*together[:2], "o", color=colour_of(k), markersize=6, label=_size(one.anchors_px[k]))
    farthest = float(np.abs(np.concatenate([one.alone[:, :2], one.together[:, :2]])).max())
    _square_axis(axis, max(1.25 * farthest, half / 8))
    axis.set_xlabel(f"x in px; the cell reaches from {-half:g} to {half:g}")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8, title="anchor in px",
                title_fontsize=8, columnspacing=1.2, handletextpad=0.3)  # fmt: skip


def _square_axis(axis: Any, reach: float) -> None:
    """Equal units, y downwards as in images."""
    axis.set_xlim(-reach, reach)
    axis.set_ylim(reach, -reach)
    axis.set_aspect("equal")


def _size(anchor: Array) -> str:
    return f"{anchor[0]:g} x {anchor[1]:g}"


def plot_parts(place: Sequence[Knowledge], path: Path, *, title: str) -> None:
    """What networks and factorisations are made of: a row for each level, a panel for each part and for the result."""
    names = [*place[0].parts, "g, what is applied"]
    with figure(path, 3.3 * len(names) + 0.4, 2.3 * len(place) + 0.6) as drawing:
        axes = drawing.subplots(len(place), len(names), squeeze=False)
        for row, one in zip(axes, place, strict=True):
            for axis, name, values in zip(row, names, (*one.parts.values(), one.values), strict=True):
                _draw_part(drawing, axis, values)
                axis.set_title(f"{one.label}: {name}, {' x '.join(map(str, np.shape(values)))}", fontsize=9)
        drawing.suptitle(title, **TITLE)


def _draw_part(drawing: Any, axis: Any, values: Array) -> None:
    if values.ndim < 2 or min(values.shape) == 1:
        flat = values.ravel()
        axis.plot(
            np.arange(1, flat.size + 1), flat, color=colour_of(0), linewidth=1.0, marker="." if flat.size == 1 else ""
        )
        axis.set_xlabel("index")
        return
    least, most = float(values.min()), float(values.max())
    bound = max(-least, most)
    signed = least < 0
    image = axis.imshow(
        values, aspect="auto", interpolation="nearest", cmap=DIVERGING if signed else SEQUENTIAL,
        vmin=-bound if signed else 0, vmax=bound,
    )  # fmt: skip
    axis.grid(visible=False)
    axis.set_xlabel("column")
    axis.set_ylabel("row")
    drawing.colorbar(image, ax=axis, shrink=0.8)
