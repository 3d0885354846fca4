"""The table of a study in Markdown, CSV and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from cloverleaf import atomic
from cloverleaf.ablation.markdown import to_markdown
from cloverleaf.ablation.results import METRICS, Results
from cloverleaf.ablation.rows import Row, make_rows
from cloverleaf.ablation.texts import clock, count_text, mean_text
from cloverleaf.reports.comparison import Bar, plot_comparison


def write_table(results: Results, folder: Path, *, picture: bool = True) -> None:
    """Write table.md, table.csv and by option table.png."""
    rows = make_rows(results)
    atomic.write_text(folder / "table.md", to_markdown(results, rows))
    atomic.write_text(folder / "table.csv", to_csv(rows))
    if picture:
        draw(results, rows, folder / "table.png")


def to_csv(rows: Sequence[Row]) -> str:
    """One line per variation, every number with full precision; what is not known is empty."""
    seeds = sorted({run.seed for row in rows for run in row.runs})
    lines = []
    for row in rows:
        line: dict[str, object] = {"variation": row.name}
        line["runs"] = sum(run.state == "complete" for run in row.runs)
        line["failed"] = sum(run.state == "failed" for run in row.runs)
        for metric, label in METRICS.items():
            own, difference = row.spreads[metric], row.differences.get(metric)
            line |= {f"{label} n": own.n, f"{label} mean": own.mean, f"{label} sd": own.sd}
            for seed in seeds:
                line[f"{label} seed {seed}"] = next((r.metrics.get(metric) for r in row.runs if r.seed == seed), None)
            for name in ("mean", "low", "high", "p", "outside"):
                line[f"{label} difference {name}"] = None if difference is None else getattr(difference, name)
        for name in ("parameters", "training_parameters", "flops", "image_size", "latency_ms", "relative"):
            line[name] = getattr(row.cost, name, None)
        line["training_seconds"] = row.training_seconds
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
    bars = []
    for row in rows:
        found = row.differences.get("AP")
        latency = "-" if row.cost is None or row.cost.latency_ms is None else f"{row.cost.latency_ms:.2f}"
        cells = [
            mean_text(row.spreads["AP50"]), mean_text(row.spreads["APs"]),
            "-" if row.cost is None else count_text(row.cost.parameters),
            "-" if row.cost is None else f"{row.cost.flops / 1e9:.3g}",
            latency, clock(row.training_seconds),
        ]  # fmt: skip
        own = row.spreads["AP"]
        difference = None if found is None else (found.mean, found.low, found.high)
        bars.append(Bar(row.name, row.values("AP"), own.mean, own.sd, difference, cells))
    headings = ("AP50", "AP-small", "parameters", "GFLOPs", "latency, ms", "training")
    plot_comparison(bars, path, title=results.title, metric="AP", baseline=results.baseline, headings=headings)
