"""The end of a run: judge the best weights, draw the pictures, write metrics.json and report.html."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cloverleaf import __version__, atomic
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.data.index import DetectionIndex
from cloverleaf.predict.evaluate import EvaluationResult, evaluate_model
from cloverleaf.reports.tables import series
from cloverleaf.training.callbacks.averaging import SwaCallback
from cloverleaf.training.callbacks.record import RecordCallback
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.multi import as_learned
from cloverleaf.training.pictures import draw_run
from cloverleaf.training.runtime import Runtime
from cloverleaf.training.swa import SwaResult, finish_swa
from cloverleaf.training.tasks import RUN_TASKS, spoken
from cloverleaf.weights.format import load


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left.

    Attributes:
        run_dir: the run folder.
        best_weights: weights of the epoch with the best fitness.
        last_weights: weights of the last epoch.
        swa_weights: mean of the weights of the last epochs; None without `swa.enabled`.
        report: the self-contained report.
        metrics: what metrics.json holds.
    """

    run_dir: Path
    best_weights: Path
    last_weights: Path
    swa_weights: Path | None
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
    swa: SwaCallback | None,
    notes: dict[str, Any],
    is_first: bool,
) -> TrainResult:
    """Judge the best weights and write everything that is made once per run; only the first process does.

    With ``swa`` its mean is made, saved and judged too, and all weights of the run stand side by side.
    """
    run_dir = config.output_dir
    result = _result(run_dir, {})
    if not is_first:
        return result
    model = load(result.best_weights)
    once = replace(config.data, cache="none")  # a cache is not worth filling for one pass
    judged = evaluate_model(model, val, data=once, config=config.evaluation, device=runtime.device)
    judged = as_learned(judged, model, config)
    metrics = _metrics(config, record, judged, runtime, notes)
    if swa is not None:
        metrics["weights"] = _compare(record, judged, _average(swa, config, train, val, runtime, say))
    if config.task != "semantic":
        atomic.write_json(run_dir / "predictions.json", judged.rows)
    atomic.write_json(run_dir / "metrics.json", metrics, indent=2)
    draw_run(config, model, train, val, record.rows, judged, device=runtime.device)
    from cloverleaf.reports.report import write_report

    report = write_report(run_dir)  # last of all: a run that has its report is complete
    say.print(
        f"best epoch {record.best_epoch}: {_headline(judged)}  ({config.data.val_split} split)\n"
        f"weights {result.best_weights}\nreport  {report}",
        highlight=False,
        markup=False,
    )
    return _result(run_dir, metrics)


def read_result(run_dir: Path) -> TrainResult | None:
    """What a complete run left; None while it is not complete."""
    if not (run_dir / "report.html").is_file() or not (run_dir / "metrics.json").is_file():
        return None
    return _result(run_dir, json.loads((run_dir / "metrics.json").read_text(encoding="utf-8")))


def _result(run_dir: Path, metrics: dict[str, Any]) -> TrainResult:
    best, last = (run_dir / "weights" / f"{name}.safetensors" for name in ("best", "last"))
    swa = run_dir / "weights" / "swa.safetensors"
    return TrainResult(
        run_dir, best if best.exists() else last, last, swa if swa.exists() else None, run_dir / "report.html", metrics
    )


def _average(
    swa: SwaCallback, config: TrainConfig, train: DetectionIndex, val: DetectionIndex, runtime: Runtime, say: Console
) -> SwaResult | None:
    result = finish_swa(swa, config, train, val, device=runtime.device)
    if result is None:
        text = f"no averaged weights: the run ended before epoch {config.swa.first_epoch(config.epochs) + 1}"
    else:
        text = (
            f"mean of epoch{'s' if len(result.epochs) > 1 else ''} {series(result.epochs)}, "
            f"BatchNorm over {result.images} images: {_headline(result.judged)}\n"
            f"weights {result.path}"
        )
    say.print(text, highlight=False, markup=False)
    return result


def _compare(record: RecordCallback, judged: EvaluationResult, swa: SwaResult | None) -> dict[str, dict[str, Any]]:
    """The metrics of each weights file of the run; null where it was not judged or is undefined."""
    last = record.rows[-1]
    found: dict[str, tuple[Mapping[str, Any], dict[str, Any]]] = {
        "best": (judged.metrics.to_dict(), {"epochs": [record.best_epoch]}),
        "last": (last, {"epochs": [last["epoch"]]}),
    }
    if swa is not None:
        found["swa"] = swa.judged.metrics.to_dict(), {"epochs": list(swa.epochs), "batchnorm_images": swa.images}
    names = RUN_TASKS[judged.task].columns
    return {key: {**facts, **{name: numbers[name] for name in names}} for key, (numbers, facts) in found.items()}


def _metrics(
    config: TrainConfig, record: RecordCallback, judged: EvaluationResult, runtime: Runtime, notes: dict[str, Any]
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
            "teacher": config.distillation.teacher or "",
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


def _headline(judged: EvaluationResult) -> str:
    """The metrics that matter most, as text."""
    return ", ".join(
        f"{spoken(name)} {_number(judged.metrics[name])}" for name in RUN_TASKS[judged.task].headline
    )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
