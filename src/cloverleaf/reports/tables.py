"""The numbers of metrics.json as text for the tables of the report; whatever is missing or damaged is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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


def speed(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Milliseconds per image of each step."""
    times = [
        (key.removesuffix("_ms"), value) for key, value in section(metrics, "speed").items() if key.endswith("_ms")
    ]
    return [(name, number(value, 1)) for name, value in times if is_number(value)]


def classes(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per class: text for the cells, the AP also as a percentage for its bar."""
    table = []
    listed = metrics.get("classes")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict):
            continue
        cells = [number(entry.get(key)) for key in ("AP", "AP50", "precision", "recall", "f1")]
        width = round(100 * float(entry["AP"]), 1) if is_number(entry.get("AP")) else 0
        table.append(
            {"name": entry.get("name", "?"), "objects": entry.get("objects", "–"), "cells": cells, "width": width}
        )
    return table


def mistakes(metrics: dict[str, Any], most: int = 6) -> list[tuple[int, str, str]]:
    """The most frequent confusions between two classes: count, true class, detected class."""
    confusion = section(metrics, "confusion")
    names, counts = confusion.get("classes"), confusion.get("counts")
    if not isinstance(names, list) or not isinstance(counts, list):
        return []
    last = len(names) - 1
    pairs = [
        (int(count), str(names[i]), str(names[j]))
        for i, row in enumerate(counts[:last])
        for j, count in enumerate(row[:last])
        if i != j and count > 0
    ]
    return sorted(pairs, key=lambda pair: -pair[0])[:most]


def weights(metrics: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """One row per weights file of the run: name, the epochs in it, AP, AP50 and AP75; empty if there is but one."""
    table = []
    for name, values in section(metrics, "weights").items():
        if isinstance(values, dict):
            epochs = [int(epoch) for epoch in values.get("epochs") or () if is_number(epoch)]
            cells = [number(values.get(key)) for key in ("AP", "AP50", "AP75")]
            table.append((str(name), series(epochs), cells))
    return table
