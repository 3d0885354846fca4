"""What seeds can tell: Dunnett's intervals against his table and against SciPy, and the cases at the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cloverleaf.ablation.statistics import (
    compare,
    dunnett_coverage,
    dunnett_critical,
    smallest_visible,
    spread,
    unequal,
)

Values = dict[str, dict[int, float]]
HALF = math.sqrt(0.5)  # as many runs of the variation as of the baseline


@pytest.mark.parametrize(
    ("comparisons", "freedom", "published"),  # C. W. Dunnett, Biometrics 20 (1964): two-sided 5 % points
    [(1, 5, 2.57), (2, 5, 3.03), (3, 5, 3.29), (1, 10, 2.23), (2, 10, 2.57), (4, 10, 2.89), (5, 20, 2.73)],
)
def test_critical_values_are_the_published_ones(comparisons: int, freedom: int, published: float) -> None:
    assert dunnett_critical([HALF] * comparisons, freedom) == pytest.approx(published, abs=0.006)


def test_coverage_equals_scipy() -> None:
    """Unequal numbers of runs give unequal loadings; SciPy's test knows them too."""
    rng = np.random.default_rng(3)
    control, *others = (rng.normal(0.5 + 0.01 * k, 0.01, n) for k, n in enumerate((4, 3, 2, 3)))
    spread_of_all = math.sqrt(sum(group.var() * len(group) for group in (control, *others)) / 8)
    loadings = [math.sqrt(len(group) / (len(group) + len(control))) for group in others]
    expected = stats.dunnett(*others, control=control)
    interval = expected.confidence_interval(0.95)
    critical = dunnett_critical(loadings, 8)
    for k, group in enumerate(others):
        error = spread_of_all * math.sqrt(1 / len(group) + 1 / len(control))
        statistic = abs(group.mean() - control.mean()) / error
        assert 1 - dunnett_coverage(statistic, loadings, 8) == pytest.approx(expected.pvalue[k], abs=2e-3)
        assert interval.high[k] - interval.low[k] == pytest.approx(2 * critical * error, abs=4e-4)


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_one_comparison_is_the_paired_t_test() -> None:
    base, other = [0.50, 0.52, 0.51, 0.55], [0.53, 0.56, 0.54, 0.57]
    found = compare({"base": by_seed(*base), "other": by_seed(*other)}, "base")["other"]
    expected = stats.ttest_rel(other, base)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-3)


def test_what_a_seed_does_to_all_is_taken_out() -> None:
    values = {"base": by_seed(0.1, 0.5, 0.3), "a": by_seed(0.12, 0.521, 0.319), "b": by_seed(0.1, 0.501, 0.3)}
    found = compare(values, "base")
    assert found["a"].outside and not found["b"].outside
    assert found["a"].mean == pytest.approx(0.02)
    # two-way analysis of variance by hand: residual variance over (3 - 1) * (3 - 1) degrees of freedom
    table = np.array([list(group.values()) for group in values.values()])
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    half = dunnett_critical([HALF] * 2, 4) * math.sqrt((residual**2).sum() / 4 * 2 / 3)
    assert found["a"].high - found["a"].low == pytest.approx(2 * half)


def test_missing_runs_are_compared_within_their_seeds() -> None:
    """Seed 1 is 0.4 better for all; the variation that lacks it is not worse for that."""
    values = {"base": by_seed(0.1, 0.5, 0.101), "a": by_seed(0.11, 0.511, 0.11), "b": {0: 0.12, 2: 0.121}}
    found = compare(values, "base")
    assert found["b"].mean == pytest.approx(0.02, abs=1e-3) and found["b"].outside


def test_intervals_hold_all_at_once() -> None:
    """Of 400 studies in which nothing differs, about one in twenty claims a difference anywhere."""
    rng = np.random.default_rng(0)
    limit = dunnett_critical([HALF] * 3, 6) * math.sqrt(2 / 3)
    claims = 0
    for study in range(400):
        table = rng.normal(0, 1, (4, 3)) + rng.normal(0, 3, (1, 3))
        residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
        differences = table[1:].mean(1) - table[0].mean()
        claimed = bool((np.abs(differences) > limit * math.sqrt((residual**2).sum() / 6)).any())
        claims += claimed
        if study < 3:
            names = ("base", "a", "b", "c")
            found = compare({name: by_seed(*row) for name, row in zip(names, table.tolist(), strict=True)}, "base")
            assert any(difference.outside for difference in found.values()) == claimed
    assert 0.02 < claims / 400 < 0.085


@pytest.mark.parametrize(
    ("values", "compared"),
    [
        ({"base": by_seed(0.5), "a": by_seed(0.9)}, []),  # one seed: no claim
        ({"base": by_seed(0.5), "a": by_seed(0.9, 0.8)}, []),  # a baseline that failed but once
        ({"base": by_seed(0.5, 0.6), "a": by_seed(0.9), "b": by_seed(0.5, 0.7)}, ["b"]),
        ({"base": by_seed(0.5, 0.6), "a": {}}, []),
        ({"base": {}, "a": by_seed(0.5, 0.6)}, []),
        ({"base": by_seed(0.5, 0.6), "a": {3: 0.5, 4: 0.6}}, []),  # no common seed
        ({"base": by_seed(0.5, 0.6), "a": {1: 0.5, 4: 0.6}}, []),  # one, and nothing that shows a spread
    ],
)
def test_too_few_runs_make_no_claim(values: Values, compared: list[str]) -> None:
    assert list(compare(values, "base")) == compared
    assert math.isnan(smallest_visible(values, "base")) == (not compared)


def test_runs_that_do_not_spread() -> None:
    same = by_seed(0.5, 0.5)
    found = compare({"base": same, "same": same, "other": by_seed(0.6, 0.6)}, "base")
    assert not found["same"].outside and found["same"].p == 1
    assert found["other"].outside and found["other"].p == 0
    assert found["other"].low == pytest.approx(0.1) and found["other"].high == pytest.approx(0.1)


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 2.0, 4.0]).sd == pytest.approx(1.527525)
    assert math.isnan(spread([1.0]).sd) and spread([1.0]).mean == 1
    assert math.isnan(spread([]).mean)


def test_a_variation_that_spreads_far_wider_is_named() -> None:
    calm = {"base": by_seed(0.50, 0.51, 0.49), "a": by_seed(0.52, 0.50, 0.51), "b": by_seed(0.50, 0.49, 0.51)}
    assert unequal(calm, "base") == []
    assert unequal({**calm, "wild": by_seed(0.1, 0.5, 0.6)}, "base") == ["wild"]
    assert unequal({"wild": by_seed(0.1, 0.5, 0.6), **calm}, "wild") == ["wild"]
    assert unequal({"base": by_seed(0.5, 0.6), "a": by_seed(0.5, 0.6)}, "base") == []
