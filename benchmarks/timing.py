"""What benchmarks have in common: timing in turn, ratios from the same rounds, and what reports say beside them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
Clock = Callable[[], float]


def chosen_clock(processor_time: bool) -> Clock:
    return time.process_time if processor_time else time.perf_counter


def in_turn(
    actions: Mapping[Key, Callable[[], object]],
    *,
    repeats: int,
    clock: Clock = time.perf_counter,
    before: Callable[[], object] = lambda: None,
) -> dict[Key, list[float]]:
    """Seconds of each action in every round but the first, which warms up; ``before`` is not timed."""
    spent: dict[Key, list[float]] = {name: [] for name in actions}
    for repeat in range(1 + repeats):
        for name, action in actions.items():
            before()
            start = clock()
            action()
            if repeat:
                spent[name].append(clock() - start)
    return spent


def median_ms(times: Mapping[Key, list[float]], digits: int = 2) -> dict[str, float]:
    return {f"{name}_ms": round(statistics.median(taken) * 1e3, digits) for name, taken in times.items()}


def median_ratio(over: list[float], under: list[float], digits: int = 2) -> float:
    """Median, over the rounds, of one action's time over another's."""
    return round(statistics.median(a / b for a, b in zip(over, under, strict=True)), digits)


def environment(**more: object) -> dict[str, object]:
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        **more,
    }


def write_report(options: argparse.Namespace, where: Mapping[str, object], **result: Any) -> None:
    """Write results, the options they belong to and the environment to `--output`, if one is given."""
    if options.output:
        settings = {name: value for name, value in vars(options).items() if name != "output"}
        report = {**result, "settings": settings, "environment": where}
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
