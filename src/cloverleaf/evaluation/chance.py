"""What rankings in random order are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def chance_precision(ranked: npt.NDArray[np.integer[Any]], right: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
    """Expected average precision of ``(n,)`` rankings in random order; 0 of a ranking of nothing.

    The place of each of the m right ones among g is uniform, and each of the others is before it with equal
    probability, so it is (H + (m - 1) / (g - 1) (g - H)) / g with H the g-th harmonic number. That is more than the
    share m / g, and much more in short rankings.

    Args:
        ranked: g of each ranking.
        right: m of each.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(ranked.max(initial=0)) + 1))])[ranked]
    others = np.where(ranked > 1, (right - 1) / np.maximum(ranked - 1, 1), 0.0)
    return (harmonic + others * (ranked - harmonic)) / np.maximum(ranked, 1)
