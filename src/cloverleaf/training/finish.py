"""The end of a run: judge the best weights, draw the pictures, write metrics.json and report.html."""

from __future__ import annotations

import math
import platform
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cloverleaf import __version__, atomic
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.data.index import DetectionIndex
from cloverleaf.predict.evaluate import EvaluationResult, evaluate_model
from cloverleaf.training.callbacks.record import RecordCallback
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.pictures import draw_run
from cloverleaf.training.runtime import Runtime
from cloverleaf.weights.format import load


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left.

    Attributes:
        run_dir: the run folder.
        best_weights: weights of the epoch with the best fitness.
        last_weights: weights of the last epoch.
        report: the self-contained report.
        metrics: what metrics.json holds.
    """

    run_dir: Path
    best_weights: Path
    last_weights: Path
    report: Path
    metrics: dict[str, Any]


def finish(
    config: TrainConfig,
    train: DetectionIndex,
    val: DetectionIndex,
    record: RecordCallback,
    runtime: Runtime,
    say: Console,
    *,
    notes: dict[str, str],
    is_first: bool,
) -> TrainResult:
    """Judge the best weights and write everything that is made once per run; only the first process does."""
    run_dir = config.output_dir
    weights = run_dir / "weights"
    last = weights / "last.safetensors"
    best = weights / "best.safetensors"
    result = TrainResult(run_dir, best if best.exists() else last, last, run_dir / "report.html", {})
    if not is_first:
        return result
    model = load(result.best_weights)
    once = replace(config.data, cache="none")  # a cache is not worth filling for one pass
    judged = evaluate_model(model, val, data=once, config=config.evaluation, device=runtime.device)
    metrics = _metrics(config, record, judged, runtime, notes)
    atomic.write_json(run_dir / "predictions.json", judged.rows)
    atomic.write_json(run_dir / "metrics.json", metrics, indent=2)
    draw_run(config, model, train, val, record.rows, judged, device=runtime.device)
    from cloverleaf.reports.report import write_report

    report = write_report(run_dir)
    ap, ap50 = judged.metrics["AP"], judged.metrics["AP50"]
    say.print(
        f"best epoch {record.best_epoch}: AP {_number(ap)}, AP50 {_number(ap50)}  ({config.data.val_split} split)\n"
        f"weights {result.best_weights}\nreport  {report}",
        highlight=False,
        markup=False,
    )
    return TrainResult(run_dir, result.best_weights, last, report, metrics)


def _metrics(
    config: TrainConfig, record: RecordCallback, judged: EvaluationResult, runtime: Runtime, notes: dict[str, str]
) -> dict[str, Any]:
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return {
        "best_epoch": record.best_epoch,
        "epochs": len(record.rows),
        "split": config.data.val_split,
        **judged.to_json(),
        "run": {
            **notes,
            "recipe": config.recipe,
            "training_seconds": round(record.seconds, 1),
            "device": runtime.accelerator,
            "precision": runtime.precision,
            "processor": platform.processor() or platform.machine(),
            "cpus": usable_cpus(),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20),
            "cloverleaf": __version__,
            "torch": torch.__version__,
        },
    }


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
