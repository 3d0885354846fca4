"""How the constant is made: a vector, a network over a prior, a factorisation (arXiv 2105.04206, equations 6 to 8)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.layers.implicit.module import Implicit
from cloverleaf.layers.implicit.options import ImplicitOptions, Modelling

START_STD = 0.02  # of everything that is drawn from a normal distribution
_SILU_IS_ONE = 1.278464542761074  # silu(x) = 1


class ImplicitVector(Implicit):
    """g = z: every number is learned by itself; at first N(m, 0.02^2) around doing nothing.

    Attributes:
        value: ``(1, C, 1, 1)`` as published; ``(K, C, 1, 1)`` of an inner product.
    """

    def __init__(self, options: ImplicitOptions, channels: int, only: Sequence[int] | None = None) -> None:
        super().__init__(options, channels, only)
        rows = self.out_channels if self.operator == "inner" else 1
        self.value = nn.Parameter(_noisy(_start(self)).reshape(rows, -1, 1, 1))

    def representation(self) -> Tensor:
        """As `Implicit.representation`."""
        return self.value.flatten()


class ImplicitNetwork(Implicit):
    """g = act(W z + b): all numbers depend on one prior.

    The prior starts as N(0, 0.02^2), of a multiplication N(1, 0.02^2), and W as a fresh 1x1 convolution. Its b is such
    that g starts around doing nothing (docs/fidelity.md, entry 161).

    Attributes:
        prior: z ``(D,)``.
        weight: W ``(size, D)``.
        bias: b ``(size,)``.
    """

    def __init__(self, options: ImplicitOptions, channels: int, only: Sequence[int] | None = None) -> None:
        super().__init__(options, channels, only)
        mean, bound = float(self.operator == "multiply"), 1 / math.sqrt(options.prior_size)
        self.prior = nn.Parameter(nn.init.normal_(torch.empty(options.prior_size), mean, START_STD))
        self.weight = nn.Parameter(nn.init.uniform_(torch.empty(self.size, options.prior_size), -bound, bound))
        before = _start(self)
        if options.activation == "silu":
            before = before * _SILU_IS_ONE
        self.bias = nn.Parameter(before - mean * self.weight.detach().sum(1))

    def representation(self) -> Tensor:
        """As `Implicit.representation`."""
        g = (self.weight * self.prior).sum(1) + self.bias  # a matrix product would be rounded under autocast
        return F.silu(g) if self.options.activation == "silu" else g


class ImplicitFactorisation(Implicit):
    """g = Z^T c + b: a basis of priors and how much of each; sparse, non-negative or both by option.

    Each atom starts around doing nothing with the deviation 0.02, the coefficients as those of a fresh 1x1 convolution;
    where doing nothing is not zero they are positive and sum to 1 (docs/fidelity.md, entry 161). No coefficient starts
    where a constraint holds it at zero, as it would get no gradient there.

    Attributes:
        basis: Z ``(A, size)``.
        coefficients: c ``(A,)``.
        bias: b ``(1,)``; None with constraints.
    """

    def __init__(self, options: ImplicitOptions, channels: int, only: Sequence[int] | None = None) -> None:
        super().__init__(options, channels, only)
        start, atoms = _start(self), options.num_atoms
        basis = torch.stack([_noisy(start) for _ in range(atoms)])
        bound = 1 / math.sqrt(atoms)
        coefficients = nn.init.uniform_(torch.empty(atoms), -bound, bound)
        if options.non_negative or self.operator in ("multiply", "inner"):
            basis, coefficients = basis.abs() if options.non_negative else basis, coefficients.abs()
        if self.operator in ("multiply", "inner"):
            coefficients = coefficients / coefficients.sum()
        sign = torch.where(coefficients < 0, -1.0, 1.0)
        self.basis = nn.Parameter(basis)
        self.coefficients = nn.Parameter(coefficients + options.sparsity * sign)
        self.bias = nn.Parameter(torch.zeros(1)) if options.has_bias else None

    def effective_coefficients(self) -> Tensor:
        """``(A,)``: c as the constraints leave it."""
        c: Tensor = self.coefficients
        if self.options.sparsity:
            c = c.sign() * (c.abs() - self.options.sparsity).relu()
        return c.relu() if self.options.non_negative else c

    def representation(self) -> Tensor:
        """As `Implicit.representation`."""
        basis = self.basis.relu() if self.options.non_negative else self.basis
        g = (basis * self.effective_coefficients()[:, None]).sum(0)
        return g if self.bias is None else g + self.bias


_MODULES: Mapping[Modelling, type[Implicit]] = {
    "vector": ImplicitVector,
    "network": ImplicitNetwork,
    "factorisation": ImplicitFactorisation,
}


def implicit_module(
    options: ImplicitOptions, channels: int, only: Sequence[int] | None = None, *, nth: int = 0
) -> Implicit:
    """A fresh module.

    Its random numbers follow from the state of PyTorch's generator, which stays as it is: the rest of a model starts
    from the same seed with the same weights, whether there is implicit knowledge or not, so that both can be compared
    seed by seed. Only a layer that it makes wider or narrower draws more or less, and what follows draws differently.

    Args:
        options: operator and modelling.
        channels: of the maps.
        only: as in `Implicit`.
        nth: its number among modules between which nothing is drawn, so that they start differently.
    """
    with _own_draws(nth):
        return _MODULES[options.modelling](options, channels, only)


def maybe_implicit(
    options: ImplicitOptions | None, channels: int, only: Sequence[int] | None = None, *, nth: int = 0
) -> nn.Module:
    """As `implicit_module`; without options `nn.Identity`."""
    return nn.Identity() if options is None else implicit_module(options, channels, only, nth=nth)


def width_behind(module: nn.Module, channels: int) -> int:
    """Channels behind what `maybe_implicit` gave for ``channels``."""
    return module.out_channels if isinstance(module, Implicit) else channels


@contextmanager
def _own_draws(nth: int) -> Iterator[None]:
    """Inside, PyTorch's generator is seeded by its own state and ``nth``; afterwards it goes on as before."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(zlib.crc32(state.numpy().tobytes(), nth))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def _start(module: Implicit) -> Tensor:
    """``(size,)``: around what g starts.

    Zeros, of a multiplication ones; of an inner product the identity, with another width random orthogonal rows.
    """
    if module.operator == "inner":
        matrix = torch.empty(module.out_channels, module.in_channels)
        square = module.out_channels == module.in_channels
        return (nn.init.eye_(matrix) if square else nn.init.orthogonal_(matrix)).flatten()
    return torch.full((module.size,), float(module.operator == "multiply"))


def _noisy(start: Tensor) -> Tensor:
    return start + nn.init.normal_(torch.empty_like(start), 0.0, START_STD)
