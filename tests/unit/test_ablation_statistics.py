"""What seeds can tell: Dunnett's intervals against his table and against SciPy, and the cases at the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cloverleaf.ablation.statistics import (
    compare,
    dunnett_critical,
    pooled_sd,
    smallest_visible,
    spread,
    unequal,
)

HALF = math.sqrt(0.5)  # as many runs of the variation as of the baseline


@pytest.mark.parametrize(
    ("comparisons", "freedom", "published"),  # C. W. Dunnett, Biometrics 20 (1964): two-sided 5 % points
    [(1, 5, 2.57), (2, 5, 3.03), (3, 5, 3.29), (1, 10, 2.23), (2, 10, 2.57), (4, 10, 2.89), (5, 20, 2.73)],
)
def test_critical_values_are_the_published_ones(comparisons: int, freedom: int, published: float) -> None:
    assert dunnett_critical([HALF] * comparisons, freedom) == pytest.approx(published, abs=0.006)


def test_equals_scipy_with_unequal_numbers_of_runs() -> None:
    rng = np.random.default_rng(3)
    runs = {"base": rng.normal(0.5, 0.01, 4), "a": rng.normal(0.51, 0.01, 3), "b": rng.normal(0.53, 0.01, 2),
            "c": rng.normal(0.5, 0.01, 3)}  # fmt: skip
    found = compare({name: values.tolist() for name, values in runs.items()}, "base")
    others = [name for name in runs if name != "base"]
    expected = stats.dunnett(*(runs[name] for name in others), control=runs["base"])
    interval = expected.confidence_interval(0.95)
    for k, name in enumerate(others):
        assert found[name].p == pytest.approx(expected.pvalue[k], abs=2e-3)
        assert (found[name].low, found[name].high) == pytest.approx((interval.low[k], interval.high[k]), abs=2e-4)
        assert found[name].outside == (found[name].p < 0.05)


def test_one_comparison_is_the_t_test() -> None:
    base, other = [0.50, 0.52, 0.51], [0.53, 0.56, 0.54]
    found = compare({"base": base, "other": other}, "base")["other"]
    expected = stats.ttest_ind(other, base)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-3)


def test_intervals_hold_all_at_once() -> None:
    """Of 400 studies in which nothing differs, about one in twenty claims a difference anywhere."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        values = {name: rng.normal(0, 1, 3).tolist() for name in ("base", "a", "b", "c")}
        sd, freedom = pooled_sd(list(values.values()))
        limit = CRITICAL * sd * math.sqrt(2 / 3)
        means = {name: float(np.mean(group)) for name, group in values.items()}
        assert freedom == 8
        claims += any(abs(means[name] - means["base"]) > limit for name in "abc")
    assert 0.02 < claims / 400 < 0.085


CRITICAL = dunnett_critical([HALF] * 3, 8)


@pytest.mark.parametrize(
    ("values", "compared"),
    [
        ({"base": [0.5], "a": [0.9]}, []),  # one seed: no claim
        ({"base": [0.5], "a": [0.9, 0.8]}, []),  # a baseline that failed but once
        ({"base": [0.5, 0.6], "a": [0.9], "b": [0.5, 0.7]}, ["b"]),
        ({"base": [0.5, 0.6], "a": []}, []),
        ({"base": [], "a": [0.5, 0.6]}, []),
    ],
)
def test_too_few_runs_make_no_claim(values: dict[str, list[float]], compared: list[str]) -> None:
    assert list(compare(values, "base")) == compared
    assert math.isnan(smallest_visible(values, "base")) == (not compared)


def test_runs_that_do_not_spread() -> None:
    found = compare({"base": [0.5, 0.5], "same": [0.5, 0.5], "other": [0.6, 0.6]}, "base")
    assert not found["same"].outside and found["same"].p == 1
    assert found["other"].outside and found["other"].p == 0
    assert found["other"].low == found["other"].high == pytest.approx(0.1)


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 2.0, 4.0]).sd == pytest.approx(1.527525)
    assert math.isnan(spread([1.0]).sd) and spread([1.0]).mean == 1
    assert math.isnan(spread([]).mean)


def test_a_variation_that_spreads_far_wider_is_named() -> None:
    calm = {"base": [0.50, 0.51, 0.49], "a": [0.52, 0.50, 0.51], "b": [0.50, 0.49, 0.51]}
    assert unequal(calm) == []
    assert unequal({**calm, "wild": [0.1, 0.5, 0.6]}) == ["wild"]
