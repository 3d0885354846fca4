"""The table of a study as Markdown, with what is needed to read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cloverleaf.ablation.cost import Cost
from cloverleaf.ablation.results import PreparedResult, Results, RunResult
from cloverleaf.ablation.rows import Row
from cloverleaf.ablation.statistics import smallest_visible, unequal
from cloverleaf.ablation.texts import clock, count_text, mean_text, number, p_text

_UNREST = 1.5  # median latency over the fastest; about 1.1 on a quiet machine


def to_markdown(results: Results, rows: Sequence[Row]) -> str:
    """The whole table with what is needed to read it."""
    parts = [f"# {results.title}"]
    if results.question:
        parts.append(" ".join(results.question.split()))
    parts += [_setting(results), _means(results, rows)]
    if any(run.curve for run in results.runs):
        parts.append(_curves(results))
    if len(rows) > 1:
        parts += [f"## Against {_escaped(results.baseline)}", _differences(results, rows)]
    if results.prepared:
        parts += ["## Prepared first", _prepared(results.prepared)]
    parts += [
        "## Every run",
        _runs(results, rows),
        "## How to read it",
        "\n".join(f"- {note}" for note in notes(results, rows)),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(results: Results) -> str:
    data = results.dataset
    return (
        f"{results.model}, recipe `{results.recipe}`, {results.epochs} epochs at {data['image_size']} px; "
        f"{data['name']}: {data['train_images']} training images, judged on {data['judged_images']} ({results.split})."
    )


def _means(results: Results, rows: Sequence[Row]) -> str:
    metrics = results.table.columns
    headings = ["variation", "runs", *metrics.values(), "parameters (trained)", "GFLOPs", "latency, ms", "training"]
    lines = []
    for row in rows:
        mark = " (baseline)" if row.name == results.baseline else ""
        complete = sum(run.state == "complete" for run in row.runs)
        failed = sum(run.state == "failed" for run in row.runs)
        lines.append(
            [
                _escaped(row.name) + mark,
                f"{complete}" + (f", {failed} failed" if failed else ""),
                *(mean_text(row.spreads[metric]) for metric in metrics),
                *_cost_cells(row.cost),
                clock(row.training_seconds),
            ]
        )
    return _grid(headings, lines)


def _cost_cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["-"] * 3
    latency = "-" if cost.latency_ms is None else f"{cost.latency_ms:.2f} ({cost.relative:.2f}x)"
    return [
        f"{count_text(cost.parameters)} ({count_text(cost.training_parameters)})",
        f"{cost.flops / 1e9:.3g}",
        latency,
    ]


def _differences(results: Results, rows: Sequence[Row]) -> str:
    headings, metrics = ["variation"], results.table.columns
    for label in metrics.values():
        headings += [label, "outside the spread"]
    lines = []
    for row in rows:
        if row.name == results.baseline:
            continue
        cells = [_escaped(row.name)]
        for metric in metrics:
            found = row.differences.get(metric)
            text = "-" if found is None else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
            verdict = "no claim" if found is None else f"{'yes' if found.outside else 'no'} (p {p_text(found.p)})"
            cells += [text, verdict]
        lines.append(cells)
    return _grid(headings, lines)


def _curves(results: Results) -> str:
    table = results.table
    label = table.columns[table.judged]
    return (
        f"![{label} after each epoch, mean and spread of the runs](curves.png)\n\n"
        f"{label} on {results.val_split} after each judged epoch: mean ± standard deviation over the runs "
        "([numbers](curves.csv))."
    )


def _prepared(prepared: Sequence[PreparedResult]) -> str:
    """What was there before the runs, and what it cost."""
    lines = []
    for made in prepared:
        name = _escaped(made.name) + ("" if made.seed is None else f", seed {made.seed}")
        cost = "-" if made.seconds is None else clock(made.seconds)
        users = ", ".join(map(_escaped, made.used_by)) + (" (all seeds)" if made.seed is None else "")
        came = {"complete": made.reached, "failed": "failed", "missing": "still to come"}[made.state]
        lines.append([name, _escaped(made.about), users, came or "-", cost])
    return _grid(["step", "what", "for", "came to", "training"], lines, texts=4)


def _runs(results: Results, rows: Sequence[Row]) -> str:
    """The metrics of each seed."""
    metrics = results.table.columns
    seeds = sorted({run.seed for row in rows for run in row.runs})
    lines = []
    for row in rows:
        by_seed = {run.seed: run for run in row.runs}
        lines.append([_escaped(row.name), *(_run_text(by_seed.get(seed), metrics) for seed in seeds)])
    return _grid([f"variation: {' / '.join(metrics.values())}", *(f"seed {seed}" for seed in seeds)], lines)


def _run_text(run: RunResult | None, metrics: Iterable[str]) -> str:
    if run is None or run.state == "missing":
        return ""
    if run.state == "failed":
        return "failed"
    return " / ".join(number(run.metrics.get(metric)) for metric in metrics)


def notes(results: Results, rows: Sequence[Row]) -> list[str]:
    """What the numbers are, and what they do not say."""
    found = ["Mean ± sample standard deviation over the runs (n - 1 in the denominator)."]
    cost = next((row.cost for row in rows if row.cost is not None), None)
    table = results.table
    if cost is not None:
        found.append(f"Parameters and {table.flops}; in brackets the parameters that are trained.")
    if cost is not None and results.latency:
        threads, rounds = results.latency.get("threads"), results.latency.get("rounds")
        where = results.latency.get("device", "") + (f", {threads} threads" if threads else "")
        found.append(
            f"Latency: {table.latency}, float32, one image ({where}), and its ratio to the "
            f"baseline; the fastest of {rounds} rounds that time all variations in changing order. What is the same "
            "once fused is measured once."
        )
        if (unrest := results.latency.get("unrest", 1.0)) > _UNREST:
            found.append(
                f"The machine was busy while latency was measured (the median is {unrest:.1f} times the fastest): do "
                "not rely on it. To measure it again, remove results.json and give the same command."
            )
    found.append("Training: mean time in epochs, judging included; comparable if the runs ran under the same load.")
    if results.task == "multi":
        found.append("Tasks that a run does not have, or has switched off by a gain of 0, have no numbers.")
    if results.prepared:
        found.append(
            "Training times leave out what was prepared first. Where all seeds share a step, the spread of the runs "
            "does not hold what another making of it would change."
            if any(made.seed is None for made in results.prepared)
            else "Training times leave out what was prepared first."
        )
    found += _claims(results, rows)
    if results.split == results.val_split:
        found.append(
            f"The epoch with the best fitness on {results.split} is the one that is judged, on the same images: all "
            "values are a little too high, for all variations alike."
        )
    for row in rows:
        for run in row.runs:
            if run.state == "failed":
                found.append(f"{_escaped(row.name)}, seed {run.seed}, failed: {_escaped(run.reason)}.")
    for made in results.prepared:
        if made.state == "failed":
            seed = "" if made.seed is None else f", seed {made.seed}"
            found.append(f"Step {_escaped(made.name)}{seed} failed: {_escaped(made.reason)}.")
    missing = sum(run.state == "missing" for row in rows for run in row.runs)
    if missing:
        found.append(f"{missing} run(s) are still to come.")
    return found


def _claims(results: Results, rows: Sequence[Row]) -> list[str]:
    """How differences are judged."""
    table = results.table
    values = {row.name: row.values(table.judged) for row in rows}
    if len(rows) < 2:
        return []
    if math.isnan(smallest_visible(values, results.baseline)):
        return ["No claim is made about differences: that needs two runs at least, of the baseline and of a variation."]
    visible = ", ".join(
        f"{label} {limit:.3f}"
        for metric, label in table.columns.items()
        if (limit := smallest_visible({row.name: row.values(metric) for row in rows}, results.baseline)) == limit
    )
    found = [
        "Differences are taken seed by seed, since a seed means the same start, order and augmentation for all "
        "variations; what is left of the spread is measured on all runs together. The intervals are Dunnett's: with "
        "95 % confidence all of them are right at once. Outside the spread: 0 is not in the interval.",
        f"Smaller differences than these could not have been told from chance: {visible}.",
    ]
    if len({tuple(own) for own in values.values()}) > 1:
        found.append("Not all variations have the same seeds: a difference is not that of the means above.")
    wild = unequal(values, results.baseline)
    if wild:
        found.append(
            f"{', '.join(map(_escaped, wild))}: the {table.columns[table.judged]} of its runs spreads more widely than "
            "that of the others, which the intervals take to be alike; do not rely on its difference."
        )
    return found


def _grid(headings: Sequence[str], lines: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A table of which the first columns are ``texts`` and the others numbers."""
    rule = ["---" if column < texts else "---:" for column in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *lines))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
