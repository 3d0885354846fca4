"""The table of a study in Markdown, CSV and as a picture, and the course of its runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from cloverleaf import atomic
from cloverleaf.ablation.markdown import to_markdown
from cloverleaf.ablation.results import Results
from cloverleaf.ablation.rows import Row, make_rows
from cloverleaf.ablation.statistics import spread
from cloverleaf.ablation.texts import clock, count_text, mean_text
from cloverleaf.reports.comparison import Bar, plot_comparison
from cloverleaf.reports.convergence import Course, plot_convergence


def write_table(results: Results, folder: Path, *, picture: bool = True) -> None:
    """Write table.md, table.csv and curves.csv, and by option table.png and curves.png."""
    rows = make_rows(results)
    courses = [course_of(row) for row in rows]
    atomic.write_text(folder / "table.md", to_markdown(results, rows))
    atomic.write_text(folder / "table.csv", to_csv(results, rows))
    atomic.write_text(folder / "curves.csv", curves_to_csv(results, rows, courses))
    if picture:
        draw(results, rows, folder / "table.png")
        table = results.table
        plot_convergence(
            courses, folder / "curves.png", title=results.title,
            metric=f"{table.columns[table.judged]} on {results.val_split}",
        )  # fmt: skip


def course_of(row: Row) -> Course:
    """Mean and spread over the complete runs, epoch by epoch."""
    curves = [run.curve for run in row.runs if run.state == "complete"]
    epochs = sorted({epoch for curve in curves for epoch in curve})
    found = [spread([curve[epoch] for curve in curves if epoch in curve]) for epoch in epochs]
    return Course(row.name, epochs, [own.mean for own in found], [own.sd for own in found])


def curves_to_csv(results: Results, rows: Sequence[Row], courses: Sequence[Course]) -> str:
    """One line per variation and judged epoch; what is not known is empty."""
    table = results.table
    label = table.columns[table.judged]
    seeds = sorted({run.seed for run in results.runs})
    names = ["variation", "epoch", "n", f"{label} mean", f"{label} sd", *(f"{label} seed {seed}" for seed in seeds)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row, course in zip(rows, courses, strict=True):
        curves = {run.seed: run.curve for run in row.runs if run.state == "complete"}
        for epoch, mean, sd in zip(course.epochs, course.means, course.sds, strict=True):
            values = [curves.get(seed, {}).get(epoch) for seed in seeds]
            n = sum(value is not None for value in values)
            writer.writerow([_plain(cell) for cell in (row.name, epoch, n, mean, sd, *values)])
    return text.getvalue()


def to_csv(results: Results, rows: Sequence[Row]) -> str:
    """One line per variation, every number with full precision; what is not known is empty."""
    seeds = sorted({run.seed for row in rows for run in row.runs})
    lines = []
    for row in rows:
        line: dict[str, object] = {"variation": row.name}
        line["runs"] = sum(run.state == "complete" for run in row.runs)
        line["failed"] = sum(run.state == "failed" for run in row.runs)
        for metric, label in results.table.columns.items():
            own, difference = row.spreads[metric], row.differences.get(metric)
            line |= {f"{label} n": own.n, f"{label} mean": own.mean, f"{label} sd": own.sd}
            for seed in seeds:
                line[f"{label} seed {seed}"] = next((r.metrics.get(metric) for r in row.runs if r.seed == seed), None)
            for name in ("mean", "low", "high", "p", "outside"):
                line[f"{label} difference {name}"] = None if difference is None else getattr(difference, name)
        for name in ("parameters", "training_parameters", "flops", "image_size", "latency_ms", "relative"):
            line[name] = getattr(row.cost, name, None)
        line["training_seconds"] = row.training_seconds
        if results.prepared:
            line["needs"] = " ".join(sorted({made.name for made in results.prepared if row.name in made.used_by}))
        lines.append({key: _plain(value) for key, value in line.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _plain(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return round(value, 6) if isinstance(value, float) else value


def draw(results: Results, rows: Sequence[Row], path: Path) -> None:
    """The picture of the table."""
    table, bars = results.table, []
    judged, *others = table.columns
    for row in rows:
        found = row.differences.get(judged)
        latency = "-" if row.cost is None or row.cost.latency_ms is None else f"{row.cost.latency_ms:.2f}"
        cells = [
            *(mean_text(row.spreads[metric]) for metric in others),
            "-" if row.cost is None else count_text(row.cost.parameters),
            "-" if row.cost is None else f"{row.cost.flops / 1e9:.3g}",
            latency, clock(row.training_seconds),
        ]  # fmt: skip
        own = row.spreads[judged]
        difference = None if found is None else (found.mean, found.low, found.high)
        bars.append(Bar(row.name, row.values(judged), own.mean, own.sd, difference, cells))
    headings = (*(table.columns[metric] for metric in others), "parameters", "GFLOPs", "latency, ms", "training")
    plot_comparison(
        bars, path, title=results.title, metric=table.columns[judged], baseline=results.baseline, headings=headings
    )
