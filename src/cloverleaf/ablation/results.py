"""The numbers of a study as plain data: results.json holds all that its table says."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cloverleaf import __version__, atomic
from cloverleaf.ablation.cost import Cost
from cloverleaf.ablation.folder import Folder
from cloverleaf.ablation.items import Plan, Run, run_name
from cloverleaf.ablation.metrics import TABLES, Table
from cloverleaf.ablation.prepare import preparations
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.errors import ConfigError
from cloverleaf.evaluation.multi import RETRIEVAL_COLUMNS, TAG_COLUMNS
from cloverleaf.models.spec import Task
from cloverleaf.training.config_io import read_config
from cloverleaf.training.finish import read_result
from cloverleaf.training.tasks import RUN_TASKS

State = Literal["complete", "failed", "missing"]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunResult:
    """One run.

    Attributes:
        variation, seed: which one.
        state: `missing` when it is not complete and did not fail.
        reason: why it failed.
        metrics: of the best weights on the judged split; None where undefined.
        best_epoch, epochs: the epoch they are of, and how many there were.
        training_seconds: time in epochs, their judging included.
        cpus: that the run could use.
        precision: of the training.
        curve: the metric that the picture shows after each judged epoch, on the split that chose the best one.
    """

    variation: str
    seed: int
    state: State
    reason: str = ""
    metrics: dict[str, float | None] = Field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    training_seconds: float | None = None
    cpus: int | None = None
    precision: str = ""
    curve: dict[int, float] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PreparedResult:
    """One making of what variations need.

    Attributes:
        name, seed: which one; no seed for what all seeds share.
        about: what it is.
        used_by: variations.
        state, reason: as of a run; a given file is complete.
        seconds: time in epochs; None for a file.
        reached: what came of it, as text.
    """

    name: str
    seed: int | None = None
    about: str
    used_by: tuple[str, ...]
    state: State
    reason: str = ""
    seconds: float | None = None
    reached: str = ""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Results:
    """A study and what came of it.

    Attributes:
        version: of this form.
        name, title, question, baseline, split: as in the study.
        val_split: the split that chose the best epochs.
        metric: that comes first; the first of the task when empty.
        task: of all variations.
        model, recipe, epochs: of the baseline.
        variations: what each changes, in the order of the table.
        shared: what all of them set.
        dataset: name, images, classes, image size.
        costs: by variation.
        latency: how it was measured.
        runs: all, failed and missing ones too.
        prepared: what had to be there first, likewise.
        environment: versions and machine.
    """

    version: Literal[1] = 1
    name: str
    title: str
    question: str
    baseline: str
    split: str
    val_split: str
    task: Task = "detect"
    metric: str = ""
    model: str
    recipe: str
    epochs: int
    variations: dict[str, dict[str, Any]]
    shared: dict[str, Any]
    dataset: dict[str, Any]
    costs: dict[str, Cost]
    latency: dict[str, Any]
    runs: tuple[RunResult, ...]
    prepared: tuple[PreparedResult, ...] = ()
    environment: dict[str, Any]

    @property
    def table(self) -> Table:
        """What the table shows."""
        return TABLES[self.task].led_by(self.metric)


_ADAPTER: TypeAdapter[Results] = TypeAdapter(Results)


def collect(folder: Folder, plan: Plan, costs: Mapping[str, Cost], latency: Mapping[str, Any]) -> Results:
    """Read what the runs in the folder have left; seeds of earlier calls count too."""
    study, base = plan.study, plan.variations[0].config
    runs = []
    for variation in plan.variations:
        for seed in sorted({*plan.seeds, *folder.seeds(variation.name)}):
            runs.append(
                read_run(folder, variation.name, seed, study.split, plan.val_split, plan.task, study.metric or "")
            )
    return Results(
        name=study.name, title=study.title or study.name, question=study.question, baseline=study.baseline,
        split=study.split, val_split=plan.val_split, task=plan.task, metric=study.metric or "",
        model=base.model.name, recipe=base.recipe,
        epochs=base.epochs, variations={v.name: v.changes for v in plan.variations}, shared=plan.shared,
        dataset=plan.dataset, costs=dict(costs), latency=dict(latency), runs=tuple(runs),
        prepared=_prepared(folder, plan, {*plan.seeds, *(run.seed for run in runs)}),
        environment={
            "cloverleaf": __version__, "torch": torch.__version__, "machine": platform.machine(),
            "cpus": usable_cpus(),
        },
    )  # fmt: skip


def judged_file(folder: Folder, name: str, split: str) -> Path:
    """Where a run's numbers on another split than the one of its training lie."""
    return folder.run_dir(name) / f"judged-{split}.json"


def _prepared(folder: Folder, plan: Plan, seeds: set[int]) -> tuple[PreparedResult, ...]:
    """The steps, with every seed where each has its own."""
    found = []
    for name, step in plan.steps.items():
        users = tuple(v.name for v in plan.variations if name in v.needs.values())
        users += tuple(f"step {other.name}" for other in plan.steps.values() if name in other.needs.values())
        if step.given is not None:
            found.append(PreparedResult(name=name, about=step.about, used_by=users, state="complete"))
        for run in preparations(plan.steps, {name}, plan.study.seeds[0], sorted(seeds)):
            if run.step != name:
                continue
            result, reason = read_result(folder.run_dir(run.name)), folder.reason(run.name) or ""
            state: State = "failed" if reason else "missing" if result is None else "complete"
            found.append(
                PreparedResult(
                    name=name, seed=run.seed, about=step.about, used_by=users, state=state, reason=reason,
                    seconds=None if result is None else result.metrics["run"]["training_seconds"],
                    reached=reached(folder, run) or "",
                )
            )  # fmt: skip
    return tuple(found)


def reached(folder: Folder, run: Run) -> str | None:
    """What a preparation came to, as text; None while it is not complete."""
    result = read_result(folder.run_dir(run.name))
    if result is None:
        return None
    if run.verb == "pretrain":
        return f"loss {result.metrics['first_loss']:.3f} to {result.metrics['loss']:.3f}"
    table = TABLES[result.metrics.get("task", "detect")]
    value = result.metrics.get(table.judged)
    return f"{table.columns[table.judged]} {'-' if value is None else format(value, '.3f')}"


def read_run(
    folder: Folder, variation: str, seed: int, split: str, val_split: str, task: Task, metric: str = ""
) -> RunResult:
    """What a run has left; its curve is that of ``metric``, or of the first of the task.

    Of several tasks, those that the run has switched off have no numbers: what features that move away under a head
    leave of it is no result.
    """
    name = run_name(variation, seed)
    if reason := folder.reason(name):
        return RunResult(variation=variation, seed=seed, state="failed", reason=reason)
    result = read_result(folder.run_dir(name))
    judged = None if result is None else result.metrics
    if judged is not None and split != val_split:
        path = judged_file(folder, name, split)
        judged = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if result is None or judged is None:
        return RunResult(variation=variation, seed=seed, state="missing")
    about = result.metrics["run"]
    run_dir, led = folder.run_dir(name), TABLES[task].led_by(metric).judged
    columns = _learned(run_dir) if task == "multi" else set(RUN_TASKS[task].columns)
    metrics = {key: judged.get(key) if key in columns else None for key in RUN_TASKS[task].columns}
    return RunResult(
        variation=variation, seed=seed, state="complete", metrics=metrics,
        best_epoch=result.metrics["best_epoch"], epochs=result.metrics["epochs"],
        training_seconds=about["training_seconds"], cpus=about["cpus"], precision=about["precision"],
        curve=_curve(run_dir / "results.csv", led) if led in columns else {},
    )  # fmt: skip


def _learned(run_dir: Path) -> set[str]:
    """The numbers of the tasks that a run of several tasks learns."""
    gains = read_config(run_dir / "config.yaml").loss.multi
    later = {"tags": TAG_COLUMNS, "embeddings": RETRIEVAL_COLUMNS}
    boxes = [key for key in RUN_TASKS["multi"].columns if not any(key in keys for keys in later.values())]
    return {key for task, keys in {"boxes": boxes, **later}.items() if getattr(gains, task) != 0 for key in keys}


def _curve(path: Path, metric: str) -> dict[int, float]:
    """The metric of every epoch in which it was judged and is defined."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["epoch"]): float(row[metric]) for row in rows if row.get(metric)}


def write_results(results: Results, path: Path) -> None:
    """Write results.json; atomic."""
    atomic.write_json(path, _ADAPTER.dump_python(results, mode="json"), indent=2)


def read_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        ConfigError: it is missing, damaged or of another form.
    """
    fix = "run the study, or name its folder with --output"
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}", "the study has not run there", fix) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise ConfigError(f"{path} cannot be used", f"{where}: {first['msg']}", fix) from None
