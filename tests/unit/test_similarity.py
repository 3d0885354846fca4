"""Centred kernel alignment: the definition, what does not change it, and estimates from batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cloverleaf.ops.similarity import linear_cka, normalised, unbiased_hsic


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_definition() -> None:
    """HSIC of linear kernels with the centring matrix, written out."""
    x, y = draw(12, 5), draw(12, 3, seed=1) + draw(12, 5)[:, :3]
    h = np.eye(12) - 1 / 12
    k, m = (h @ (a @ a.T).numpy() @ h for a in (x, y))
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert float(linear_cka(x, y)) == pytest.approx(expected, rel=1e-12)
    assert float(linear_cka(x, x)) == pytest.approx(1)


def test_unbiased_definition() -> None:
    """Equation 3 of arXiv 2010.15327, written out."""
    n, features = 9, [draw(9, 4), draw(9, 2, seed=1)]
    grams = [np.where(np.eye(n), 0, (x @ x.T).numpy()) for x in features]
    one = np.ones(n)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        product = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + product - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    expected = [[hsic(k, m) for m in grams] for k in grams]
    np.testing.assert_allclose(unbiased_hsic(features).numpy(), expected, rtol=1e-10)


def test_what_does_not_change_it() -> None:
    x, y = draw(20, 6), draw(20, 6) @ draw(6, 4, seed=2) + draw(20, 4, seed=3)
    rotation = torch.linalg.qr(draw(6, 6, seed=4))[0]
    same = [-3.0 * x @ rotation + 5, torch.cat([x, torch.zeros(20, 2)], 1)]
    for other in same:
        torch.testing.assert_close(linear_cka(other, y), linear_cka(x, y))
        torch.testing.assert_close(normalised(unbiased_hsic([other, y])), normalised(unbiased_hsic([x, y])))
    stretched = x * torch.linspace(0.1, 3, 6)
    assert abs(float(linear_cka(stretched, y) - linear_cka(x, y))) > 0.01


def test_batches_agree_with_all_at_once_and_chance_is_zero() -> None:
    """Independent wide features: the plain similarity is far from 0, the unbiased one is not."""
    x, y = draw(400, 50), draw(400, 50, seed=1)
    parts = [unbiased_hsic([x[i : i + 20], y[i : i + 20]]) for i in range(0, 400, 20)]
    assert float(linear_cka(x[:20], y[:20])) > 0.5
    assert abs(float(normalised(sum(parts) / len(parts))[0, 1])) < 0.05  # type: ignore[arg-type]
    related = [x, x[:, :30] + y[:, :30]]
    parts = [unbiased_hsic([r[i : i + 20] for r in related]) for i in range(0, 400, 20)]
    batched = normalised(sum(parts) / len(parts))  # type: ignore[arg-type]
    torch.testing.assert_close(batched, normalised(unbiased_hsic(related)), atol=0.05, rtol=0)


def test_degenerate_input() -> None:
    with pytest.raises(ValueError, match="needs 4"):
        unbiased_hsic([draw(3, 2)])
    constant = normalised(unbiased_hsic([draw(8, 2), torch.ones(8, 3, dtype=torch.float64)]))
    assert constant[0, 0] == 1 and constant[0, 1].isnan() and constant[1, 1].isnan()
