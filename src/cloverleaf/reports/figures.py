"""Figures of a training run and of an evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, MUTED, colour_of
from cloverleaf.drawing.text import printable

Floats = npt.NDArray[np.floating[Any]]
_MOST_LINES = 8  # lines that still can be told apart

# What a run is judged by, by the first of its columns: panels of a title, columns with labels, and the first colour.
_PANELS: Mapping[str, tuple[tuple[str, Mapping[str, str], int], ...]] = {
    "top1": (
        ("Accuracy", {"top1": "top-1", "top5": "top-5", "mean_accuracy": "mean of classes"}, 0),
        ("Loss on the validation split", {"loss": "cross-entropy"}, 3),
    ),
    "mIoU": (("Pixels", {"mIoU": "mIoU", "mAcc": "mAcc", "pixel_accuracy": "of all pixels"}, 0),),
    "mask_AP": (
        ("Average precision of masks", {"mask_AP": "AP 50-95", "mask_AP50": "AP50", "mask_AP75": "AP75"}, 0),
        ("Average precision of boxes", {"AP": "AP 50-95", "AP50": "AP50", "AP75": "AP75"}, 3),
    ),
    "retrieval_mAP": (
        ("Average precision of boxes", {"AP": "AP 50-95", "AP50": "AP50", "AP75": "AP75"}, 0),
        ("Tags", {"tag_mAP": "mAP", "tag_F1": "F1"}, 3),
        ("Retrieval of individuals", {"R1": "within 1", "R5": "within 5", "retrieval_mAP": "mAP"}, 5),
    ),
    "AP": (
        ("Average precision", {"AP": "AP 50-95", "AP50": "AP50", "AP75": "AP75"}, 0),
        ("AP by object size", {"APs": "small", "APm": "medium", "APl": "large"}, 3),
    ),
}


def plot_losses_and_ap(
    results: Sequence[Mapping[str, Any]], path: Path, *, phases: Sequence[tuple[str, int]] = ()
) -> None:
    """Training losses, the metrics of the task and the learning rate over the epochs.

    Args:
        results: rows of ``results.csv``, as numbers or as text; missing values may be None, "" or absent. Every
            ``train/...`` column is a loss; ``lr`` and the metrics in `_PANELS` are known.
        path: the PNG to write.
        phases: name and last epoch of each phase of the run; a line stands where one ends and the next begins.
    """
    epochs = _column(results, "epoch")
    if not len(epochs) or np.isnan(epochs).all():
        epochs = np.arange(1.0, len(results) + 1)
    losses = sorted({key for row in results for key in row if key.startswith("train/")}, key=_loss_order)
    with figure(path, 11, 5.6) as drawing:
        top, bottom = drawing.subfigures(2, 1)
        axes = top.subplots(1, max(len(losses), 1), squeeze=False)[0]
        for k, (axis, key) in enumerate(zip(axes, losses, strict=False)):
            _line(axis, epochs, _column(results, key), colour=colour_of(k))
            name = key.removeprefix("train/").replace("_", " ")
            prefix = "Training loss: " if len(losses) < 4 else "Loss: " if len(losses) < 6 else ""  # as much as fits
            axis.set_title(f"{prefix}{name}")
            _from_zero(axis)
        shown = _shown(results)
        left, *others, right = bottom.subplots(1, len(shown) + 1)
        for axis, (title, lines, first) in zip((left, *others), shown, strict=True):
            _ap_axis(axis, epochs, results, lines, title, first=first)
        best = _column(results, next(iter(shown[0][1])))
        if np.isfinite(best).any():
            at = int(np.nanargmax(best))
            left.plot(epochs[at], best[at], "o", color=INK, markersize=5, zorder=5)
            left.annotate(
                f"{best[at]:.3f}", (epochs[at], best[at]), (0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        _line(right, epochs, _column(results, "lr"), colour=MUTED)
        right.set_title("Learning rate at the end of the epoch" if len(shown) < 3 else "Learning rate")
        _from_zero(right)
        for axis in (*axes, left, *others, right):
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            _boundaries(axis, phases, last=float(np.nanmax(epochs, initial=0)), named=axis is right)


def _shown(results: Sequence[Mapping[str, Any]]) -> Sequence[tuple[str, Mapping[str, str], int]]:
    """The panels of the task, without those of which nothing was judged while there are others."""
    panels = next(panels for key, panels in _PANELS.items() if any(key in row for row in results) or key == "AP")
    known = [panel for panel in panels if any(np.isfinite(_column(results, key)).any() for key in panel[1])]
    return known or panels


def _boundaries(axis: Any, phases: Sequence[tuple[str, int]], *, last: float, named: bool) -> None:
    """A vertical line between two phases that the run has come to, with the name of the one that begins there."""
    names = printable([name for name, _ in phases])
    for (_, end), name in zip(phases, names[1:], strict=False):
        if end >= last:
            break
        axis.axvline(end + 0.5, color=MUTED, linestyle="--", linewidth=1, zorder=1)
        if named:
            place = (end + 0.5, 0.96)
            axis.annotate(name, place, (2, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                          rotation=90, va="top", fontsize=8, color=INK)  # fmt: skip


def _loss_order(key: str) -> tuple[int, str]:
    known = ("train/box", "train/obj", "train/cls", "train/dfl")
    return (known.index(key) if key in known else len(known), key)


def _column(results: Sequence[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """One column as floats, NaN where it is missing."""
    values = [row.get(key) for row in results]
    return np.array([np.nan if value is None or value == "" else float(value) for value in values], dtype=np.float64)


def _line(axis: Any, x: Floats, y: Floats, *, colour: str, label: str | None = None) -> None:
    known = np.isfinite(y) & np.isfinite(x)
    axis.plot(x[known], y[known], color=colour, label=label, marker="o" if known.sum() < 3 else None, markersize=4)


def _from_zero(axis: Any, *, least: float = 0.0) -> None:
    """From 0 to a little above the highest point, so that no marker is cut."""
    top = max(1.06 * axis.dataLim.y1, least)
    axis.set_ylim(0, top if np.isfinite(top) and top > 0 else 1)


def _ap_axis(
    axis: Any,
    epochs: Floats,
    results: Sequence[Mapping[str, Any]],
    lines: Mapping[str, str],
    title: str,
    *,
    first: int = 0,
) -> None:
    columns = {key: _column(results, key) for key in lines}
    known = {key for key, values in columns.items() if np.isfinite(values).any()}
    for k, (key, label) in enumerate(lines.items()):
        if key in known or not known:  # what is never defined, as top-5 of three classes, has no line
            _line(axis, epochs, columns[key], colour=colour_of(first + k), label=label)
    axis.set_title(title)
    _from_zero(axis, least=0.1)
    axis.legend(loc="best")


def plot_pr_curves(
    recall: Floats, precision: Floats, names: Sequence[str], path: Path, *, ap50: Floats | None = None
) -> None:
    """Precision over recall at IoU 0.5.

    Args:
        recall: (G,) in [0, 1].
        precision: (K, G); rows of classes without objects are NaN.
        names: K class names.
        path: the PNG to write.
        ap50: (K,) AP50 of each class for the legend.
    """
    with figure(path, 7.4, 4.6) as drawing:
        axis = drawing.subplots()
        notes = None if ap50 is None else [f"{value:.3f}" if np.isfinite(value) else "-" for value in ap50]
        rows = np.asarray(precision, dtype=np.float64).reshape(len(names), -1)
        _class_lines(axis, recall, rows, names, _highlighted(rows), notes)
        _legend_beside(axis)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axis.set_title("Precision and recall at IoU 0.5" + ("" if ap50 is None else " (legend: AP50)"))


def plot_confidence_curves(
    confidence: Floats,
    precision: Floats,
    recall: Floats,
    f1: Floats,
    names: Sequence[str],
    path: Path,
    *,
    best_confidence: float | None = None,
) -> None:
    """Precision, recall and F1 over the confidence threshold.

    Args:
        confidence: (G,) thresholds.
        precision, recall, f1: (K, G); rows of classes without objects are NaN.
        names: K class names.
        path: the PNG to write.
        best_confidence: threshold to mark, the one with the best mean F1.
    """
    highlighted = _highlighted(np.asarray(f1, dtype=np.float64).reshape(len(names), -1))
    with figure(path, 12, 4.2) as drawing:
        for k, (axis, values, title) in enumerate(
            zip(
                drawing.subplots(1, 3, sharey=True), (precision, recall, f1), ("Precision", "Recall", "F1"), strict=True
            )
        ):
            rows = np.asarray(values, dtype=np.float64).reshape(len(names), -1)
            _class_lines(axis, confidence, rows, names, highlighted)
            axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence threshold")
            axis.set_title(title)
            if best_confidence is not None and np.isfinite(best_confidence):
                axis.axvline(best_confidence, color=MUTED, linestyle="--", linewidth=1)
                if k == 2:
                    axis.text(best_confidence + 0.01, 0.02, f"best F1 at {best_confidence:.2f}", fontsize=8, color=INK)
        _legend_beside(axis)


def _highlighted(rows: Floats) -> list[int]:
    """Classes whose lines get a colour: all while they can be told apart, else the two best and the two worst."""
    means = np.array([np.nan if np.isnan(row).all() else np.nanmean(row) for row in rows])
    order = [int(k) for k in np.argsort(-means, kind="stable") if not np.isnan(means[k])]
    return sorted(order) if len(order) <= _MOST_LINES else order[:2] + order[-2:]


def _class_lines(
    axis: Any,
    x: Floats,
    rows: Floats,
    names: Sequence[str],
    highlighted: Sequence[int],
    notes: Sequence[str] | None = None,
) -> None:
    """One line per class, the highlighted ones in colours, and the mean of all in black."""
    shown = printable(list(names))
    present = [int(k) for k in np.flatnonzero(~np.isnan(rows).all(1))]
    for k in present:
        if k not in highlighted:
            axis.plot(x, rows[k], color=MUTED, alpha=0.3, linewidth=1.0)
    for number, k in enumerate(highlighted):
        label = f"{shown[k]} {notes[k]}" if notes else shown[k]
        axis.plot(x, rows[k], color=colour_of(number), linewidth=1.4, label=label)
    if present:
        label = f"mean of {len(present)} classes"
        axis.plot(x, np.nanmean(rows[present], axis=0), color=INK, linewidth=2.6, label=label)


def _legend_beside(axis: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def plot_class_counts(counts: Mapping[str, Sequence[int]], names: Sequence[str], path: Path) -> None:
    """How many images each class has.

    Args:
        counts: per split K numbers.
        names: K class names.
        path: the PNG to write.
    """
    shown = printable(list(names))
    with figure(path, min(max(4.5, 0.3 * len(shown) + 2), 16), 3.6) as drawing:
        axis = drawing.subplots()
        width = 0.8 / len(counts)
        for k, (split, numbers) in enumerate(counts.items()):
            places = np.arange(len(shown)) + (k - (len(counts) - 1) / 2) * width
            axis.bar(places, numbers, width, color=colour_of(k), label=split)
        axis.set_xticks(range(len(shown)), shown, rotation=90 if len(shown) > 8 else 0)
        axis.set(ylabel="images")
        axis.set_title("Images of each class")
        axis.legend(loc="best")
