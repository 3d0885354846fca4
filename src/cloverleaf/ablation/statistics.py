"""What a handful of seeds can and cannot tell: spreads, and differences to a baseline that hold all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

CONFIDENCE = 0.95
_UNEQUAL = 3.0  # times the spread of the others; F(2, 8) exceeds 3.0 squared in less than one case of a hundred


@dataclass(frozen=True, slots=True)
class Spread:
    """Some runs of one variation.

    Attributes:
        n: how many.
        mean: NaN without runs.
        sd: sample standard deviation (n - 1 in the denominator); NaN with fewer than two runs.
    """

    n: int
    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A variation's mean minus the baseline's.

    Attributes:
        mean: the difference.
        low, high: interval that holds the true difference, for all variations at once, with 95 % confidence.
        p: chance of a largest difference like this one or beyond if no variation differed from the baseline.
    """

    mean: float
    low: float
    high: float
    p: float

    @property
    def outside(self) -> bool:
        """Whether the difference lies outside the spread of the seeds: 0 is not in the interval."""
        return not self.low <= 0 <= self.high


def spread(values: Sequence[float]) -> Spread:
    """Number, mean and sample standard deviation of the values."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    return Spread(n, mean, float(np.std(values, ddof=1)) if n > 1 else math.nan)


def pooled_sd(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Spread of all runs around the mean of their own variation, and its degrees of freedom; (NaN, 0) if unknown.

    Three seeds say little about a spread (the sample standard deviation of three is off by a factor of two in every
    fourth case); all variations together say much more, if they spread alike.
    """
    freedom = sum(max(len(group) - 1, 0) for group in groups)
    squares = sum(float(np.square(np.asarray(group) - np.mean(group)).sum()) for group in groups if len(group))
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


def compare(values: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Difference]:
    """Every variation against the baseline, by Dunnett's test (1955): pooled spread, all intervals right at once.

    Args:
        values: the runs of each variation, baseline included.
        baseline: name of the baseline.

    Returns:
        Differences of the variations that have at least two runs; empty when the baseline has fewer than two.
    """
    groups = {name: group for name, group in values.items() if len(group) > 1}
    others = [name for name in groups if name != baseline]
    if baseline not in groups or not others:
        return {}
    sd, freedom = pooled_sd(list(groups.values()))
    control = groups[baseline]
    errors = {name: sd * math.sqrt(1 / len(groups[name]) + 1 / len(control)) for name in others}
    loadings = [math.sqrt(len(groups[name]) / (len(groups[name]) + len(control))) for name in others]
    critical = dunnett_critical(loadings, freedom)
    found = {}
    for name in others:
        mean, half = float(np.mean(groups[name]) - np.mean(control)), critical * errors[name]
        if errors[name] > 0:
            p = 1 - dunnett_coverage(abs(mean) / errors[name], loadings, freedom)
        else:
            p = 0.0 if mean else 1.0  # nothing spreads: any difference is one
        found[name] = Difference(mean, mean - half, mean + half, min(max(p, 0.0), 1.0))
    return found


def smallest_visible(values: Mapping[str, Sequence[float]], baseline: str) -> float:
    """The smallest difference that these runs could have told from chance (the widest half interval); NaN if none."""
    halves = [(difference.high - difference.low) / 2 for difference in compare(values, baseline).values()]
    return max(halves, default=math.nan)


def unequal(values: Mapping[str, Sequence[float]]) -> list[str]:
    """Variations that spread several times as widely as the others together; their own intervals are too narrow."""
    found = []
    for name, group in values.items():
        others, freedom = pooled_sd([other for key, other in values.items() if key != name])
        if len(group) > 1 and freedom > 1 and np.std(group, ddof=1) > _UNEQUAL * others:
            found.append(name)
    return found


def dunnett_coverage(limit: float, loadings: Sequence[float], freedom: int) -> float:
    """Probability that every |T_i| is below ``limit`` when nothing differs.

    Args:
        limit: at least 0.
        loadings: lambda_i = sqrt(n_i / (n_i + n_0)); T_i and T_j correlate by lambda_i * lambda_j.
        freedom: of the pooled spread.

    T_i = (sqrt(1 - lambda_i^2) * Z_i - lambda_i * Z_0) / S with independent standard normal Z and S^2 chi-square over
    its degrees of freedom: given Z_0 and S the T_i are independent, and the two are integrated out on a grid.
    """
    levels = (np.arange(_GRID) + 0.5) / _GRID  # equal slices of probability of S and Z_0
    scale = np.sqrt(stats.chi2.ppf(levels, freedom) / freedom)[:, None]
    shared = stats.norm.ppf(levels)[None, :]
    inside = np.ones((_GRID, _GRID))
    for loading in loadings:
        inside *= _between(limit * scale, loading * shared, math.sqrt(1 - loading**2))
    return float(inside.mean())


_GRID = 400


def _between(half: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], sd: float) -> npt.NDArray[np.float64]:
    """P(-half < sd * Z + shift < half)."""
    low, high = special.ndtr((-half - shift) / sd), special.ndtr((half - shift) / sd)
    return np.asarray(high - low, dtype=np.float64)


def dunnett_critical(loadings: Sequence[float], freedom: int, confidence: float = CONFIDENCE) -> float:
    """The limit that all |T_i| stay below with probability ``confidence``."""
    single = float(stats.t.ppf(0.5 + confidence / 2, freedom))
    bonferroni = float(stats.t.ppf(1 - (1 - confidence) / 2 / len(loadings), freedom))
    if len(loadings) == 1:
        return single
    return float(
        optimize.brentq(
            lambda limit: dunnett_coverage(limit, loadings, freedom) - confidence, 0.9 * single, 1.1 * bonferroni
        )
    )
