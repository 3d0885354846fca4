"""How alike two sets of features of the same examples are: linear centred kernel alignment (arXiv 1905.00414)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_EXAMPLES = 4


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred features (section 3): 1 if they are equal up to rotation.

    Args:
        x, y: (n, d), (n, e) features of the same n examples; d and e may differ.

    Returns:
        A number in [0, 1]; it does not change when features are rotated, mirrored, shifted or scaled as a whole. NaN
        where features are constant. Biased upwards where there are few examples, see `unbiased_hsic`.
    """
    return kernel_alignment(x - x.mean(0), y - y.mean(0))


def unbiased_hsic(features: Sequence[Tensor]) -> Tensor:
    """Estimates of the Hilbert-Schmidt independence criterion of every pair, with linear kernels.

    HSIC_1 of arXiv 2010.15327, equation 3: its mean over batches has the same expectation whatever their size.

    Args:
        features: F times (n, d_i), of the same n >= 4 examples.

    Returns:
        (F, F), symmetric. `normalised` makes similarities of it, or of a mean of several.

    Raises:
        ValueError: fewer than four examples.
    """
    count = len(features[0])
    if count < LEAST_EXAMPLES:
        raise ValueError(f"{count} examples; the unbiased estimate needs {LEAST_EXAMPLES}")
    grams = torch.stack([_without_bias(x - x.mean(0)) for x in features]).flatten(1)
    return grams @ grams.T / (count * (count - 3))


def normalised(hsic: Tensor) -> Tensor:
    """(F, F) HSIC -> similarities h_ij / sqrt(h_ii h_jj), at most 1; negative by chance only; NaN of constants."""
    own = hsic.diagonal()
    own = torch.where(own > 0, own, torch.full_like(own, torch.nan)).sqrt()
    return (hsic / (own[:, None] * own)).clamp(max=1)


def _without_bias(x: Tensor) -> Tensor:
    """The Gram matrix of (n, d) with its diagonal left out of everything, U-centred: inner products are unbiased."""
    count = len(x)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(0) / (count - 2)
    total = gram.sum() / ((count - 1) * (count - 2))
    return (gram - rows[:, None] - rows + total).fill_diagonal_(0)


def kernel_alignment(x: Tensor, y: Tensor) -> Tensor:
    """<K_x, K_y> / (|K_x| |K_y|) of linear kernels that are not centred (Cristianini et al. 2001, section 3).

    Args:
        x, y: (n, d), (n, e) features of the same n examples; d and e may differ.

    Returns:
        A number in [0, 1]: `linear_cka` without centring, so that shifts count. NaN where features are zero.
    """
    return (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


def effective_dimension(x: Tensor) -> Tensor:
    """(sum of l)^2 / (sum of l^2) over the eigenvalues l of the covariance of (n, d): the participation ratio.

    Returns:
        From 1, all examples on a line, to min(n - 1, d), equal variance in all directions; NaN of constants.
    """
    x = x - x.mean(0)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return gram.trace().square() / gram.square().sum()
