"""The rows of a study's table: what its runs say about each variation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloverleaf.ablation.cost import Cost
from cloverleaf.ablation.results import Results, RunResult
from cloverleaf.ablation.statistics import Difference, Spread, compare, spread


@dataclass(frozen=True, slots=True)
class Row:
    """One variation.

    Attributes:
        name: of the variation.
        runs: all of it, by seed.
        spreads: by metric.
        differences: to the baseline by metric, where the runs allow a claim.
        cost: parameters, operations, latency; None if never measured.
    """

    name: str
    runs: tuple[RunResult, ...]
    spreads: dict[str, Spread]
    differences: dict[str, Difference]
    cost: Cost | None

    def values(self, metric: str) -> dict[int, float]:
        """By seed, of the complete runs in which the metric is defined."""
        return values_of(self.runs, metric)

    @property
    def training_seconds(self) -> float:
        """Mean of the complete runs; NaN without one."""
        return spread([run.training_seconds for run in self.runs if run.training_seconds is not None]).mean


def values_of(runs: Sequence[RunResult], metric: str) -> dict[int, float]:
    """Values of one metric, by seed, over the complete runs that have it."""
    found = ((run.seed, run.metrics.get(metric)) for run in runs if run.state == "complete")
    return {seed: value for seed, value in found if value is not None}


def make_rows(results: Results) -> list[Row]:
    """The rows, in the order of the study with the baseline first."""
    metrics = results.table.columns
    runs = {name: tuple(run for run in results.runs if run.variation == name) for name in results.variations}
    differences = {
        metric: compare({name: values_of(own, metric) for name, own in runs.items()}, results.baseline)
        for metric in metrics
    }
    return [
        Row(
            name,
            own,
            {metric: spread(list(values_of(own, metric).values())) for metric in metrics},
            {metric: found[name] for metric, found in differences.items() if name in found},
            results.costs.get(name),
        )
        for name, own in runs.items()
    ]
