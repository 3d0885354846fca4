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
from cloverleaf.inspection.knowledge import Array, Knowledge
from cloverleaf.inspection.output_names import OutputNames
from cloverleaf.layers.implicit import START_STD

_MOST_COLUMNS = 20  # of a map of factors whose numbers and names can be read
_FILL = {"--": "none"}  # of marks, by the style of their line
_AXES = {  # what runs along and down the parts of a modelling
    "prior z": ("index of z", ""),
    "weight W": ("index of z", "channel"),
    "basis Z": ("channel", "atom"),
    "coefficients c": ("atom", ""),
}
TITLE: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 10.5, "fontweight": "bold", "color": INK}


def plot_vectors(place: Sequence[Knowledge], path: Path, *, title: str) -> None:
    """Values of one place, a column for each level: sorted above, as a histogram below, their start beside them."""
    least, most = (float(pick([pick(one.learned) for one in place])) for pick in (np.min, np.max))
    bins = np.linspace(least - 1e-6, most + 1e-6, 26)
    with figure(path, max(2.6 * len(place) + 0.7, 0.088 * len(title)), 4.9) as drawing:
        axes = drawing.subplots(2, len(place), squeeze=False, sharey="row", sharex="row" if _alike(place) else False)
        for k, (one, (above, below)) in enumerate(zip(place, axes.T, strict=True)):
            values = np.sort(one.learned)
            ranks = np.arange(1, len(values) + 1)
            above.plot(ranks, values, color=colour_of(k), label="learned")
            below.hist(values, bins=list(bins), density=True, color=colour_of(k), alpha=0.75)
            if one.start is not None:
                start = stats.norm(one.start, START_STD)
                expected = start.ppf((ranks - 0.5) / len(values))
                above.plot(ranks, expected, "--", color=MUTED, lw=1.3, label=f"start, {one.start:g} ± {START_STD}")
                span = np.linspace(one.start - 4 * START_STD, one.start + 4 * START_STD, 120)
                below.plot(span, start.pdf(span), "--", color=MUTED, lw=1.3)
            above.set_title(one.label.replace(", ", "\n"))
            above.set_xlabel(f"rank of the channel, of {len(values)}")
            below.set_xlabel(f"value (mean {values.mean():.3f}, std. {values.std():.3f})")
        axes[0, 0].set_ylabel("value")
        axes[1, 0].set_ylabel("density")
        axes[0, 0].legend(loc="upper left")
        drawing.suptitle(title, **TITLE)


def _alike(place: Sequence[Knowledge]) -> bool:
    return len({one.learned.size for one in place}) == 1


def plot_outputs(place: Sequence[tuple[Knowledge, OutputNames]], path: Path, *, title: str) -> None:
    """Values of one place on a head's outputs: a map per level, a row per anchor or side, a column per output.

    Where columns are too many to be read, those of the box and the objectness stand apart, with their numbers.
    """
    first, names = place[0]
    rows = len(names.rows)
    grids = [one.values.reshape(rows, -1) for one, _ in place]
    parts = _parts_of(names, grids[0])
    widths = [0.62 * len(part) if len(part) <= _MOST_COLUMNS else 7.0 for part in parts]
    most = max(float(np.abs(one.learned - first.neutral).max()) for one, _ in place) or START_STD
    colours = {"cmap": DIVERGING, "vmin": first.neutral - most, "vmax": first.neutral + most, "aspect": "auto"}
    with figure(
        path, max(sum(widths) + 2.8, 0.088 * len(title)), len(place) * (0.34 * max(rows, 1.4) + 0.62) + 1.0
    ) as drawing:
        axes = drawing.subplots(len(place), len(parts), squeeze=False, sharex="col", width_ratios=widths)
        for line, (one, of_level), values in zip(axes, place, grids, strict=True):
            for axis, part in zip(line, parts, strict=True):
                image = axis.imshow(values[:, part], **colours)
                axis.grid(visible=False)
                axis.set_yticks(range(rows) if axis is line[0] and any(of_level.rows) else [])
                if len(part) <= _MOST_COLUMNS:
                    _write_numbers(axis, values[:, part], first.neutral, most)
                for edge in set(names.edges) & set(part[1:]):
                    axis.axvline(part.index(edge) - 0.5, color="white", linewidth=2.5)
            if any(of_level.rows):
                line[0].set_yticklabels(of_level.rows)
            line[0].set_title(one.label)
        for axis, part in zip(axes[-1], parts, strict=True):
            _name_columns(axis, [names.columns[k] for k in part])
            axis.set_xlabel(names.column_kind)
        drawing.supylabel(names.row_kind, fontsize=9.5, color=INK)
        _name_bar(drawing.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / len(place)), aspect=18), first)
        drawing.suptitle(title, **TITLE)


def _parts_of(names: OutputNames, values: Array) -> list[list[int]]:
    """Columns that are acted on; in two parts where there are too many for one map with numbers."""
    shown = [k for k in range(len(names.columns)) if np.isfinite(values[:, k]).any()]
    if len(shown) <= _MOST_COLUMNS or not names.edges:
        return [shown]
    first_class = names.edges[-1]
    return [part for part in ([k for k in shown if k < first_class], [k for k in shown if k >= first_class]) if part]


def _write_numbers(axis: Any, values: Array, neutral: float, most: float) -> None:
    for (i, j), value in np.ndenumerate(values):
        tone = "white" if abs(value - neutral) > 0.6 * most else INK
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=tone)


def _name_columns(axis: Any, columns: Sequence[str]) -> None:
    """All where they can be read, else every tenth."""
    shown = list(range(len(columns)) if len(columns) <= _MOST_COLUMNS else range(0, len(columns), 10))
    labels = [columns[k] for k in shown]
    axis.set_xticks(shown, labels, rotation=30 if max(map(len, labels)) > 10 else 0)


def _name_bar(bar: Any, one: Knowledge) -> None:
    text = {"multiply": "factor", "add": "addend", "gate": "g, applied as sigmoid(g)"}.get(one.operator, "g")
    if one.start is not None:
        text += "; lines: start ± 1 std."
        for edge in (one.start - START_STD, one.start + START_STD):
            bar.ax.axhline(edge, color=INK, linewidth=0.8)
    bar.set_label(text)


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
    names = [*place[0].parts, "g"]
    with figure(path, max(3.3 * len(names) + 0.4, 0.088 * len(title)), 2.3 * len(place) + 0.6) as drawing:
        axes = drawing.subplots(len(place), len(names), squeeze=False)
        for row, one in zip(axes, place, strict=True):
            for axis, name, values in zip(row, names, (*one.parts.values(), one.values), strict=True):
                _draw_part(drawing, axis, name, values)
                axis.set_title(f"{one.label}: {name}, {' x '.join(map(str, np.shape(values)))}", fontsize=9)
        drawing.suptitle(title, **TITLE)


def _draw_part(drawing: Any, axis: Any, name: str, values: Array) -> None:
    along, down = _AXES.get(name, ("channel", "output"))
    axis.set_xlabel(along)
    if values.ndim < 2:
        axis.plot(np.arange(1, values.size + 1), values, "." if values.size < 4 else "-", color=colour_of(0), lw=1.0)
        return
    least, most = float(values.min()), float(values.max())
    bound = max(-least, most)
    limits = (-bound, bound) if least < 0 else (least, most)
    image = axis.imshow(
        values, aspect="auto", interpolation="nearest", cmap=DIVERGING if least < 0 else SEQUENTIAL,
        vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    axis.grid(visible=False)
    axis.set_ylabel(down)
    drawing.colorbar(image, ax=axis, shrink=0.8)
