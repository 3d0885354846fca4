"""The numbers of a study as plain data: results.json holds all that its table says."""

from __future__ import annotations

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
from cloverleaf.ablation.plan import Plan, run_name
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.errors import ConfigError
from cloverleaf.training.finish import read_result

METRICS = {"AP": "AP", "AP50": "AP50", "APs": "AP-small"}
_KEPT = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
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
    """

    variation: str
    seed: int
    state: Literal["complete", "failed", "missing"]
    reason: str = ""
    metrics: dict[str, float | None] = Field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int | None = None
    training_seconds: float | None = None
    cpus: int | None = None
    precision: str = ""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Results:
    """A study and what came of it.

    Attributes:
        version: of this form.
        name, title, question, baseline, split: as in the study.
        val_split: the split that chose the best epochs.
        model, recipe, epochs: of the baseline.
        variations: what each changes, in the order of the table.
        shared: what all of them set.
        dataset: name, images, classes, image size.
        costs: by variation.
        latency: how it was measured.
        runs: all, failed and missing ones too.
        environment: versions and machine.
    """

    version: Literal[1] = 1
    name: str
    title: str
    question: str
    baseline: str
    split: str
    val_split: str
    model: str
    recipe: str
    epochs: int
    variations: dict[str, dict[str, Any]]
    shared: dict[str, Any]
    dataset: dict[str, Any]
    costs: dict[str, Cost]
    latency: dict[str, Any]
    runs: tuple[RunResult, ...]
    environment: dict[str, Any]


_ADAPTER: TypeAdapter[Results] = TypeAdapter(Results)


def collect(folder: Folder, plan: Plan, costs: Mapping[str, Cost], latency: Mapping[str, Any]) -> Results:
    """Read what the runs in the folder have left; seeds of earlier calls count too."""
    study, base = plan.study, plan.variations[0].config
    runs = []
    for variation in plan.variations:
        for seed in sorted({*plan.seeds, *folder.seeds(variation.name)}):
            runs.append(read_run(folder, variation.name, seed, study.split, plan.val_split))
    return Results(
        name=study.name, title=study.title or study.name, question=study.question, baseline=study.baseline,
        split=study.split, val_split=plan.val_split, model=base.model.name, recipe=base.recipe,
        epochs=base.epochs, variations={v.name: v.changes for v in plan.variations}, shared=plan.shared,
        dataset=plan.dataset, costs=dict(costs), latency=dict(latency), runs=tuple(runs),
        environment={
            "cloverleaf": __version__, "torch": torch.__version__, "machine": platform.machine(),
            "cpus": usable_cpus(),
        },
    )  # fmt: skip


def judged_file(folder: Folder, name: str, split: str) -> Path:
    """Where a run's numbers on another split than the one of its training lie."""
    return folder.run_dir(name) / f"judged-{split}.json"


def read_run(folder: Folder, variation: str, seed: int, split: str, val_split: str) -> RunResult:
    """What a run has left."""
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
    return RunResult(
        variation=variation, seed=seed, state="complete", metrics={key: judged.get(key) for key in _KEPT},
        best_epoch=result.metrics["best_epoch"], epochs=result.metrics["epochs"],
        training_seconds=about["training_seconds"], cpus=about["cpus"], precision=about["precision"],
    )  # fmt: skip


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
