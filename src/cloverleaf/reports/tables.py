"""The numbers of metrics.json as text for the tables of the report; whatever is missing or damaged is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def section(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping under ``key``; empty if there is none."""
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """So many decimals; a dash where it is no number."""
    return f"{value:.{digits}f}" if is_number(value) else "–"


def series(values: Sequence[int]) -> str:
    """``4, 5, 6`` -> ``4 to 6``, ``2, 4, 6`` -> ``2 to 6, every 2``; others are listed."""
    steps = {b - a for a, b in itertools.pairwise(values)}
    if len(values) < 3 or len(steps) > 1:
        return ", ".join(map(str, values))
    [step] = steps
    return f"{values[0]} to {values[-1]}" + (f", every {step}" if step != 1 else "")


def phases(config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, epochs and changed values of each phase of the run."""
    table, first = [], 1
    for name, phase in section(config, "phases").items():
        until = phase.get("until") if isinstance(phase, dict) else None
        if not isinstance(until, int):
            continue
        changed = [(key, section(phase, key)) for key in ("augment", "loss", "schedule")]
        values = ", ".join(f"{key}.{option} = {value}" for key, options in changed for option, value in options.items())
        table.append((str(name), f"{first} to {until}" if until > first else str(until), values or "as the run"))
        first = until + 1
    return table


_TILES = (
    ("top1", "Top-1", "accuracy of all images"),
    ("top5", "Top-5", "the class is among five"),
    ("mean_accuracy", "Mean accuracy", "mean over the classes"),
    ("loss", "Loss", "cross-entropy"),
    ("mask_AP", "Mask AP", "mean of IoU 0.50–0.95"),
    ("mask_AP50", "Mask AP50", "at IoU 0.50"),
    ("mask_AP75", "Mask AP75", "at IoU 0.75"),
    ("mIoU", "mIoU", "mean over the classes"),
    ("mAcc", "mAcc", "mean over the classes"),
    ("pixel_accuracy", "Accuracy", "of all pixels"),
    ("AP", "AP", "mean of IoU 0.50–0.95"),
    ("AP50", "AP50", "at IoU 0.50"),
    ("AP75", "AP75", "at IoU 0.75"),
    ("APs", "AP small", "under 32² px"),
    ("APm", "AP medium", "32² – 96² px"),
    ("APl", "AP large", "over 96² px"),
    ("tag_mAP", "Tag mAP", "mean over the tags"),
    ("tag_F1", "Tag F1", "of all tags, at 0.5"),
    ("R1", "Recall at 1", "the nearest is the same"),
    ("R5", "Recall at 5", "one of the nearest five"),
    ("retrieval_mAP", "Retrieval mAP", "mean over the queries"),
    ("precision", "Precision", "at the best threshold"),
    ("recall", "Recall", "at the best threshold"),
    ("f1", "F1", "at the best threshold"),
)


def tiles(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Label, number and note of every metric that is there; beside masks it is said which numbers are of boxes."""
    masks = "mask_AP" in metrics
    found = []
    for key, label, note in _TILES:
        if is_number(metrics.get(key)):
            found.append((f"Box {label}" if masks and label.startswith("AP") else label, number(metrics[key]), note))
    return found


def speed(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Milliseconds per image of each step."""
    times = [
        (key.removesuffix("_ms"), value) for key, value in section(metrics, "speed").items() if key.endswith("_ms")
    ]
    return [(name, number(value, 1)) for name, value in times if is_number(value)]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The table of classes.

    Attributes:
        headings: of the columns, the class's first.
        rows: name, cells, and the first metric as a percentage for its bar.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], float], ...]

    @property
    def of_objects(self) -> bool:
        """Whether it tells of objects, some of whose numbers hold at a confidence."""
        return "Objects" in self.headings


# Key, heading and whether it is a count; the first metric has the bar. A table has the columns that its classes have.
_COLUMNS = (
    ("objects", "Objects", True),
    ("pixels", "Pixels", True),
    ("images", "Images", True),
    ("mask_AP", "Mask AP", False),
    ("mask_AP50", "Mask AP50", False),
    ("AP", "AP", False),
    ("AP50", "AP50", False),
    ("precision", "Precision", False),
    ("recall", "Recall", False),
    ("f1", "F1", False),
    ("IoU", "IoU", False),
    ("accuracy", "Accuracy", False),
)


def classes(metrics: dict[str, Any]) -> ClassTable | None:
    """The numbers of each class; None where there are no classes."""
    return _table(metrics.get("classes"), "Class")


def tags(metrics: dict[str, Any]) -> ClassTable | None:
    """The numbers of each image-level label; None where there are none."""
    return _table(section(metrics, "tags").get("tags"), "Tag")


def _table(listed: Any, heading: str) -> ClassTable | None:
    entries = [entry for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)]
    if not entries:
        return None
    columns = [column for column in _COLUMNS if any(column[0] in entry for entry in entries)]
    masks = any(key == "mask_AP" for key, _, _ in columns)
    first = next((key for key, _, count in columns if not count), "")
    rows = []
    for entry in entries:
        cells = tuple(_cell(entry.get(key), count) for key, _, count in columns)
        width = round(100 * float(entry[first]), 1) if is_number(entry.get(first)) else 0.0
        rows.append((str(entry.get("name", "?")), cells, width))
    titles = (f"Box {name}" if masks and name.startswith("AP") else name for _, name, _ in columns)
    return ClassTable((heading, *titles), tuple(rows))


def _cell(value: Any, count: bool) -> str:
    if not count:
        return number(value)
    return f"{value:,}" if is_number(value) else "–"


def mistakes(metrics: dict[str, Any], most: int = 6) -> list[tuple[int, str, str]]:
    """The most frequent confusions between two classes: count, true class, detected class."""
    if images := section(metrics, "class_confusion"):
        return _most_frequent(images.get("counts"), images.get("classes"), images.get("called"), most)
    confusion = section(metrics, "confusion")
    names, counts = confusion.get("classes"), confusion.get("counts")
    if not isinstance(names, list) or not isinstance(counts, list):
        return []
    last = len(names) - 1
    return _most_frequent([row[:last] for row in counts[:last]], names, names, most)


def _most_frequent(counts: Any, rows: Any, columns: Any, most: int) -> list[tuple[int, str, str]]:
    if not all(isinstance(item, list) for item in (counts, rows, columns)):
        return []
    pairs = [
        (int(count), str(rows[i]), str(columns[j]))
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count > 0
    ]
    return sorted(pairs, key=lambda pair: -pair[0])[:most]


_HEADLINES = (
    ("top1", "mean_accuracy", "loss"),
    ("mask_AP", "mask_AP50", "AP"),
    ("mIoU", "mAcc", "pixel_accuracy"),
    ("retrieval_mAP", "R1", "tag_mAP", "AP"),
    ("AP", "AP50", "AP75"),
)


def weights(metrics: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, str, list[str]]]]:
    """Headings of metrics, and a row per weights file of the run: name, the epochs in it, the metrics.

    There are no rows if there is but one file.
    """
    found = {name: values for name, values in section(metrics, "weights").items() if isinstance(values, dict)}
    keys = next((keys for keys in _HEADLINES if any(keys[0] in values for values in found.values())), _HEADLINES[-1])
    table = []
    for name, values in found.items():
        epochs = [int(epoch) for epoch in values.get("epochs") or () if is_number(epoch)]
        table.append((str(name), series(epochs), [number(values.get(key)) for key in keys]))
    return tuple(key.replace("_", " ") for key in keys), table
