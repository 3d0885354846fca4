"""The picture of a comparison: what each variation reached, run by run, and how far it is from the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import GRID, INK, MUTED, colour_of
from cloverleaf.drawing.text import printable

_SAME, _OTHER = MUTED, colour_of(3)  # within the spread, outside of it
_NAMED_SEEDS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of the picture.

    Attributes:
        name: of the variation.
        values: of its runs, by seed.
        mean, sd: of the values; NaN where there are too few.
        difference: to the baseline with its interval (mean, low, high); None without a claim.
        cells: texts of the columns at the right.
    """

    name: str
    values: Mapping[int, float]
    mean: float
    sd: float
    difference: tuple[float, float, float] | None
    cells: Sequence[str]


def plot_comparison(
    bars: Sequence[Bar], path: Path, *, title: str, metric: str, baseline: str, headings: Sequence[str]
) -> None:
    """Runs, means and differences to the baseline, one row per variation, with a few numbers beside them.

    Args:
        bars: the rows, from above.
        path: the PNG to write.
        title: of the picture.
        metric: what the values are.
        baseline: name of the baseline.
        headings: of the cells.
    """
    names = printable([bar.name for bar in bars], longest=34)
    widths = [3.1, 3.1, 0.95 * max(len(headings), 1)]
    label = 0.085 * max(len(name) for name in names)
    colours = {seed: colour_of(k) for k, seed in enumerate(sorted({seed for bar in bars for seed in bar.values}))}
    with figure(path, sum(widths) + label + 0.9, 1.55 + 0.42 * len(bars)) as drawing:
        left, middle, right = drawing.subplots(1, 3, sharey=True, width_ratios=widths)
        for row, bar in enumerate(bars):
            _runs(left, row, bar, colours)
            _difference(middle, row, bar)
            for column, text in enumerate(bar.cells):
                right.text(column + 0.95, row, text, ha="right", va="center", fontsize=9)
        left.set_yticks(range(len(bars)), names)
        left.set_ylim(len(bars) - 0.5, -0.5)
        left.set_xlabel(f"{metric}: runs, mean ± standard deviation")
        middle.set_xlabel("difference, 95 % interval (grey: within the spread)")
        middle.axvline(0, color=INK, linewidth=1, zorder=1)
        left.set_title(metric)
        _seeds(left, colours)
        middle.set_title(f"{metric} against {printable([baseline], longest=24)[0]}")
        _table(right, headings)
        for axis in (left, middle):
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
            axis.spines["left"].set_visible(False)
            axis.margins(x=0.08)
            axis.locator_params(axis="x", nbins=4)
        drawing.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")


def _runs(axis: Any, row: int, bar: Bar, colours: Mapping[int, str]) -> None:
    if math.isfinite(bar.sd):
        axis.plot([bar.mean - bar.sd, bar.mean + bar.sd], [row, row], color=GRID, linewidth=9, solid_capstyle="butt")
    if bar.values:
        for seed, value in bar.values.items():
            axis.plot(value, row, "o", color=colours[seed], markersize=5.5, zorder=3)
        axis.plot([bar.mean] * 2, [row - 0.24, row + 0.24], color=INK, linewidth=1.6, zorder=4)
    else:
        axis.text(0.5, row, "no number", transform=axis.get_yaxis_transform(), ha="center", va="center", color=MUTED)


def _seeds(axis: Any, colours: Mapping[int, str]) -> None:
    """Which colour is which seed, at the right end of the title's line."""
    for k, (seed, colour) in enumerate(list(colours.items())[:_NAMED_SEEDS]):
        place = 1 - 0.062 * (min(len(colours), _NAMED_SEEDS) - k)
        axis.annotate(
            f"{seed}", (place + 0.035, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", ha="left",
            fontsize=8.5, color=colour, fontweight="bold",
        )  # fmt: skip
    if colours:
        start = 1 - 0.062 * min(len(colours), _NAMED_SEEDS)
        axis.annotate(
            "seed", (start + 0.02, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", ha="right",
            fontsize=8.5, color=MUTED,
        )  # fmt: skip


def _difference(axis: Any, row: int, bar: Bar) -> None:
    if bar.difference is None:
        return
    mean, low, high = bar.difference
    colour = _SAME if low <= 0 <= high else _OTHER
    axis.plot([low, high], [row, row], color=colour, linewidth=2.2, zorder=2)
    axis.plot(mean, row, "o", color=colour, markersize=6, zorder=3)
    axis.annotate(
        f"{mean:+.3f}", (mean, row), (0, 7), textcoords="offset points", ha="center", fontsize=8, color=colour
    )


def _table(axis: Any, headings: Sequence[str]) -> None:
    """Nothing but the headings; the cells are texts."""
    axis.set_xlim(0, max(len(headings), 1))
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(left=False, bottom=False, labelbottom=False)
    for column, heading in enumerate(headings):
        axis.annotate(
            heading, (column + 0.95, 1), (0, 6), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right", fontsize=9, fontweight="bold",
        )  # fmt: skip
