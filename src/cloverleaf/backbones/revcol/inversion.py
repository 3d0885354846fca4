"""Earlier columns from later ones: the inverse of the multi-level reversible unit (arXiv 2212.11696, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cloverleaf.backbones.revcol.column import Column, Features, widened


def invert_column(column: Column, stem: Tensor, features: Features) -> Features:
    """The features of the column to the left, coarsest level first computed: c_k = (c'_k - F_k) / scale_k.

    Exact but for rounding, which grows by about 1 / scale^2 from one column to the next (docs/fidelity.md, entry 117).
    It repeats the forward pass only where nothing is random: in evaluation mode, or without drop path.

    Args:
        column: not the first.
        stem: output of the stem, (B, C, H, W); only the finest level reads it.
        features: of ``column``, finest first.

    Raises:
        ValueError: the first column has no left one.
    """
    if column.first:
        raise ValueError("the first column has no left one")
    left: list[Tensor] = []
    scales = column.effective_scales()
    for k in reversed(range(len(column.levels))):
        residual = widened(column.levels[k](stem, features[:k], left))
        left.insert(0, (features[k] - residual) / scales[k])
    return tuple(left)


def invert_columns(columns: Sequence[Column], stem: Tensor, features: Features) -> list[Features]:
    """The features of all columns but the last, first column first, by inverting one after the other.

    Args:
        columns: all of them, in their order.
        stem: as `invert_column`.
        features: of the last column.
    """
    found: list[Features] = []
    for column in reversed(columns[1:]):
        features = invert_column(column, stem, features)
        found.insert(0, features)
    return found
