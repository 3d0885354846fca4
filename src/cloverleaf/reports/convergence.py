"""The picture of how fast runs learn: a metric after each epoch, mean and spread of the runs of each variation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import MUTED, colour_of
from cloverleaf.drawing.text import printable

_APART = 0.047  # least distance of two names at the end of their lines, as a share of the height


@dataclass(frozen=True, slots=True)
class Course:
    """One line of the picture.

    Attributes:
        name: of the variation.
        epochs: those that were judged, ascending.
        means, sds: over the runs after each of them; an sd is NaN with one run.
    """

    name: str
    epochs: Sequence[int]
    means: Sequence[float]
    sds: Sequence[float]


def plot_convergence(courses: Sequence[Course], path: Path, *, title: str, metric: str) -> None:
    """One line per variation in a band of a standard deviation on each side, named at its end.

    Args:
        courses: the lines; those without epochs are left out.
        path: the PNG to write.
        title: of the picture.
        metric: what the values are.
    """
    names = printable([course.name for course in courses], longest=34)
    drawn = [(k, name, course) for k, (name, course) in enumerate(zip(names, courses, strict=True)) if course.epochs]
    with figure(path, 8.2, 4.4) as drawing:
        axis = drawing.subplots()
        for k, _, course in drawn:
            _line(axis, course, colour_of(k))
        axis.set_xlabel("epoch (band: mean ± standard deviation of the runs)")
        axis.set_title(metric)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.margins(x=0.01)
        if drawn:
            _names(axis, drawn)
        else:
            axis.text(0.5, 0.5, "no number", transform=axis.transAxes, ha="center", color=MUTED)
        drawing.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")


def _line(axis: Any, course: Course, colour: str) -> None:
    spread = [sd if math.isfinite(sd) else 0.0 for sd in course.sds]
    low, high = ([mean + sign * sd for mean, sd in zip(course.means, spread, strict=True)] for sign in (-1, 1))
    axis.fill_between(course.epochs, low, high, color=colour, alpha=0.13, linewidth=0)
    axis.plot(course.epochs, course.means, color=colour, marker="o" if len(course.epochs) < 3 else None, markersize=4)


def _names(axis: Any, drawn: Sequence[tuple[int, str, Course]]) -> None:
    """Beside the ends of the lines, moved apart where they would meet."""
    low, high = axis.get_ylim()
    ends = sorted(((course.means[-1] - low) / (high - low), k, name) for k, name, course in drawn)
    places: list[float] = []
    for end, *_ in ends:
        places.append(max(end, places[-1] + _APART) if places else end)
    over = max(places[-1] - 1, 0)
    for k in reversed(range(len(places))):  # back down from the upper edge
        limit = 1.0 if k == len(places) - 1 else places[k + 1] - _APART
        places[k] = min(places[k], limit) if over else places[k]
    for place, (_, k, name) in zip(places, ends, strict=True):
        axis.annotate(
            name, (1, place), (8, 0), xycoords="axes fraction", textcoords="offset points", va="center",
            color=colour_of(k), fontweight="bold", fontsize=9, annotation_clip=False,
        )  # fmt: skip
