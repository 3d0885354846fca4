"""`cloverleaf ablate`: check, run or go on, and write the table."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cloverleaf.ablation.cost import Cost, count, measure_latency
from cloverleaf.ablation.folder import Folder, check_folder, claim, lay_out
from cloverleaf.ablation.items import Plan, Run
from cloverleaf.ablation.launch import Share, share_out, usable
from cloverleaf.ablation.plan import make_plan
from cloverleaf.ablation.results import Results, collect, read_results, write_results
from cloverleaf.ablation.study import Study, read_study
from cloverleaf.ablation.table import write_table
from cloverleaf.ablation.work import Work, stopped_by_signals
from cloverleaf.errors import ConfigError


def ablate(
    file: Path | str,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    parallel: int = 1,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    prepared: Mapping[str, Path] | None = None,
    dry_run: bool = False,
    table_only: bool = False,
    command: str = "",
    console: Console | None = None,
) -> Results | None:
    """Run a study, or go on with one, and write its table.

    Args:
        file: the study.
        data: dataset instead of the study's.
        output: folder; `runs/ablate/NAME` when None.
        parallel: runs at a time.
        seeds: instead of the study's; runs of other seeds that are there stay in the table.
        only: names of the variations to run.
        changes: nested values laid over the study's `set`.
        prepared: weights files in place of steps of the study, by name.
        dry_run: check everything and print what would be done.
        table_only: make the table again from results.json.
        command: said after Ctrl-C as how to go on.
        console: where to print.

    Returns:
        The results; None for a dry run.

    Raises:
        CloverleafError: the study is wrong, found before the first run starts.
        KeyboardInterrupt: after the runs have been stopped and the table of what is there has been written.
    """
    say = console or Console(soft_wrap=True)
    path = Path(file)
    study, lines = read_study(path)
    folder = Folder(Path(output) if output is not None else Path("runs/ablate") / study.name)
    if table_only:
        results = _again(study, read_results(folder.results))
        _write(results, folder, picture=True)
        say.print(f"table   {folder.root / 'table.md'}", highlight=False, markup=False)
        return results
    plan = make_plan(study, lines, data=data, changes=changes, seeds=seeds, only=only, prepared=prepared)
    check_folder(folder, plan)
    gpus = torch.cuda.device_count() if plan.variations[0].config.runtime.device in ("auto", "cuda") else 0
    shares = share_out(parallel, usable(), gpus)
    costs = {variation.name: count(variation) for variation in plan.variations}
    _announce(plan, folder, costs, shares, say)
    if dry_run:
        return None
    with claim(folder, path.read_text(encoding="utf-8")) as lock:
        lay_out(folder, plan)
        costs, latency = _measure(plan, costs, folder, say)

        def write(*, picture: bool = False) -> Results:
            results = collect(folder, plan, costs, latency)
            _write(results, folder, picture=picture)
            return results

        work = Work(plan, folder, lock, shares, say, write)
        try:
            with stopped_by_signals():
                work.go()
        except KeyboardInterrupt:
            write(picture=True)
            again = command or f"cloverleaf ablate {shlex.quote(str(file))}"
            say.print(f"stopped; go on with: {again}", highlight=False, markup=False)
            raise
        results = write(picture=True)
    say.print(f"table   {folder.root / 'table.md'}", highlight=False, markup=False)
    return results


def _again(study: Study, results: Results) -> Results:
    """Stored results with the texts, the baseline and the order of the study as it is now."""
    known = [name for name in study.variations if name in results.variations]
    if study.name != results.name or study.baseline not in known:
        raise ConfigError(
            f"results.json is of the study {results.name!r} with {', '.join(results.variations)}",
            f"the file is {study.name!r} with the baseline {study.baseline!r}", "name the folder with --output",
        )  # fmt: skip
    order = [study.baseline, *(name for name in known if name != study.baseline)]
    base = results.costs[study.baseline].latency_ms
    costs = {
        name: replace(cost, relative=round(cost.latency_ms / base, 4) if cost.latency_ms and base else None)
        for name, cost in results.costs.items()
    }
    return replace(
        results, title=study.title or study.name, question=study.question, baseline=study.baseline,
        variations={name: results.variations[name] for name in order},
        costs=costs,
    )  # fmt: skip


def _measure(
    plan: Plan, costs: dict[str, Cost], folder: Folder, say: Console
) -> tuple[dict[str, Cost], dict[str, Any]]:
    """The costs with latency; as measured before if that was for the same forms."""
    before = _stored(folder)
    if before is not None and before.baseline == plan.study.baseline:
        stored = {name: before.costs.get(name) for name in costs}
        known = {name: old for name, old in stored.items() if old and old.form == costs[name].form and old.latency_ms}
        if known.keys() == costs.keys():
            return known, before.latency
    say.print("measuring latency of all variations in turn", highlight=False)
    variations = {variation.name: variation for variation in plan.variations}
    return measure_latency(variations, costs, plan.study.baseline, plan.variations[0].config.runtime.device)


def _stored(folder: Folder) -> Results | None:
    """The results of an earlier call, if they can be read."""
    try:
        return read_results(folder.results)
    except ConfigError:
        return None  # they are written anew from the runs


def _announce(plan: Plan, folder: Folder, costs: Mapping[str, Cost], shares: list[Share], say: Console) -> None:
    """What is going to be done."""
    base, data = plan.variations[0].config, plan.dataset
    say.print(
        f"{plan.study.title or plan.study.name}\n"
        f"{base.model.name}, recipe {base.recipe}, {base.epochs} epochs at {base.data.image_size} px; {data['name']}: "
        f"{data['train_images']} training images, judged on {data['judged_images']} ({plan.study.split})\n"
        f"folder {folder.root}; {len(shares)} at a time with {len(shares[0].cpus)} CPU(s) each",
        highlight=False, markup=False,
    )  # fmt: skip
    for name, step in plan.steps.items():
        made = [run for run in plan.preparations if run.step == name]
        todo = "given" if step.given else _states(folder, made) or "not asked for"
        say.print(f"  prepare {name}: {todo}; {step.about}", highlight=False, markup=False)
    seen: dict[str, str] = {}
    for variation in plan.variations:
        cost = costs[variation.name]
        runs = [run for run in plan.runs if run.variation == variation.name]
        counts = _states(folder, runs)
        twin = seen.setdefault(repr((replace(variation.config, seed=0), variation.needs)), variation.name)
        same = f"  (the same as {twin})" if twin != variation.name else ""
        mark = " (baseline)" if variation.name == plan.study.baseline else ""
        say.print(
            f"  {variation.name}{mark}: {counts or 'not asked for'}; {cost.parameters / 1e6:.3f} M parameters, "
            f"{cost.flops / 1e9:.3f} GFLOPs fused{same}",
            highlight=False, markup=False,
        )  # fmt: skip


def _states(folder: Folder, runs: Sequence[Run]) -> str:
    words = {"complete": "complete", "resumable": "to resume", "new": "to run"}
    states = Counter(folder.state(run.name) for run in runs)
    return ", ".join(f"{number} {words[state]}" for state, number in states.items())


def _write(results: Results, folder: Folder, *, picture: bool) -> None:
    """results.json and the table."""
    write_results(results, folder.results)
    write_table(results, folder.root, picture=picture)
