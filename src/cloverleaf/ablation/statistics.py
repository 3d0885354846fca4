"""What a handful of seeds can and cannot tell: spreads, and differences to a baseline that hold all at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

CONFIDENCE = 0.95


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


def compare(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Difference]:
    """Every variation against the baseline: seeds as blocks, the spread of all runs together, Dunnett's intervals.

    Args:
        values: the runs of each variation by seed, baseline included.
        baseline: name of the baseline.

    Returns:
        Differences of the variations that have at least two runs and can be linked to the baseline by common seeds;
        empty when the baseline has fewer than two, or when no run is left to show a spread.
    """
    groups = {name: group for name, group in values.items() if len(group) > 1}
    if baseline not in groups:
        return {}
    fit = _fit(groups, baseline)
    others = [name for name in fit.names if fit.estimable[name]]
    if not others or not fit.freedom:
        return {}
    errors = {name: fit.sd * math.sqrt(fit.scaled_covariance[name][name]) for name in others}
    loading = math.sqrt(max(_least_correlation(fit, others), 0.0))
    critical = dunnett_critical([loading] * len(others), fit.freedom)
    found = {}
    for name in others:
        mean, half = fit.effects[name], critical * errors[name]
        if errors[name] > _NOTHING:
            p = 1 - dunnett_coverage(abs(mean) / errors[name], [loading] * len(others), fit.freedom)
        else:
            p = 0.0 if abs(mean) > _NOTHING else 1.0  # nothing spreads: any difference is one
        found[name] = Difference(mean, mean - half, mean + half, min(max(p, 0.0), 1.0))
    return found


_NOTHING = 1e-9  # rounding


@dataclass(frozen=True, slots=True)
class _Fit:
    """value = level of the seed + effect of the variation + residual, by least squares.

    Attributes:
        names: all variations but the baseline.
        effects: difference to the baseline.
        estimable: whether common seeds link a variation to the baseline.
        scaled_covariance: of the effects, over the variance of the residuals.
        squares: sum of the squared residuals.
        freedom: their degrees of freedom.
    """

    names: list[str]
    effects: dict[str, float]
    estimable: dict[str, bool]
    scaled_covariance: dict[str, dict[str, float]]
    squares: float
    freedom: int

    @property
    def sd(self) -> float:
        """The spread: standard deviation of the residuals; NaN when nothing is left to show it."""
        return math.sqrt(self.squares / self.freedom) if self.freedom else math.nan


def _fit(groups: Mapping[str, Mapping[int, float]], baseline: str) -> _Fit:
    cells = [(name, seed, value) for name, group in groups.items() for seed, value in group.items()]
    names = [name for name in groups if name != baseline]
    seeds = sorted({seed for _, seed, _ in cells})
    design = np.zeros((len(cells), len(seeds) + len(names)))
    for row, (name, seed, _) in enumerate(cells):
        design[row, seeds.index(seed)] = 1
        if name != baseline:
            design[row, len(seeds) + names.index(name)] = 1
    inverse = np.linalg.pinv(design)
    solution = inverse @ np.array([value for *_, value in cells])
    residuals = np.array([value for *_, value in cells]) - design @ solution
    freedom = len(cells) - int(np.linalg.matrix_rank(design))
    covariance, known = inverse @ inverse.T, inverse @ design
    at = {name: len(seeds) + k for k, name in enumerate(names)}
    unit = np.eye(design.shape[1])
    return _Fit(
        names,
        {name: float(solution[k]) for name, k in at.items()},
        {name: bool(np.allclose(known[k], unit[k], atol=1e-8)) for name, k in at.items()},
        {one: {two: float(covariance[at[one], at[two]]) for two in names} for one in names},
        float((residuals**2).sum()),
        freedom,
    )


def _least_correlation(fit: _Fit, names: Sequence[str]) -> float:
    """Of any two effects: 1/2 when no run is missing. For pairs with more the intervals become a little too wide."""
    c = fit.scaled_covariance
    pairs = [c[a][b] / math.sqrt(c[a][a] * c[b][b]) for a in names for b in names if a < b]
    return min(pairs, default=0.5)


def smallest_visible(values: Mapping[str, Mapping[int, float]], baseline: str) -> float:
    """The smallest difference that these runs could have told from chance (the widest half interval); NaN if none."""
    halves = [(difference.high - difference.low) / 2 for difference in compare(values, baseline).values()]
    return max(halves, default=math.nan)


def unequal(values: Mapping[str, Mapping[int, float]], baseline: str) -> list[str]:
    """Variations whose runs scatter more widely than the others' by an F test at 1 %; their intervals are too narrow.

    What a variation adds to the squared residuals of the fit without it has as many degrees of freedom as it has runs,
    less one.
    """
    groups = {name: group for name, group in values.items() if len(group) > 1}
    if baseline not in groups:
        return []
    whole, found = _fit(groups, baseline), []
    for name in groups:
        rest = {other: group for other, group in groups.items() if other != name}
        without = _fit(rest, next(iter(rest), name)) if rest else whole
        more = whole.freedom - without.freedom
        if without.freedom > 1 and more > 0:
            added = (whole.squares - without.squares) / more
            if added > stats.f.ppf(0.99, more, without.freedom) * without.squares / without.freedom:
                found.append(name)
    return found


def dunnett_coverage(limit: float, loadings: Sequence[float], freedom: int) -> float:
    """Probability that every |T_i| is below ``limit`` when nothing differs.

    Args:
        limit: at least 0.
        loadings: lambda_i of each comparison; T_i and T_j correlate by lambda_i * lambda_j.
        freedom: of the pooled spread.

    T_i = (sqrt(1 - lambda_i^2) * Z_i - lambda_i * Z_0) / S with independent standard normal Z and S^2 chi-square over
    its degrees of freedom: given Z_0 and S the T_i are independent, and the two are integrated out on a grid.
    """
    levels = (np.arange(_GRID) + 0.5) / _GRID  # equal slices of probability of S and Z_0
    scale = np.sqrt(stats.chi2.ppf(levels, freedom) / freedom)[:, None]
    shared = stats.norm.ppf(levels)[None, :]
    inside = np.ones((_GRID, _GRID))
    for loading, times in Counter(loadings).items():
        inside *= _between(limit * scale, loading * shared, math.sqrt(1 - loading**2)) ** times
    return float(inside.mean())


_GRID = 300


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
