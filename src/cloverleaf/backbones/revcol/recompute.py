"""Repeating a forward pass as it was: random numbers, autocast, and statistics that count a batch once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

RandomState = tuple[Tensor, Tensor | None]  # of the CPU, and of the GPU that is computed on


@dataclass(slots=True)
class Precision:
    """The autocast state of a forward pass."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, like: Tensor) -> Precision:
        """What holds now where ``like`` is."""
        device = like.device.type
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The state again; casts are not kept, as those made without gradients would be used with them."""
        with torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False):
            yield


def random_state(like: Tensor) -> RandomState:
    """Of the generators that code running where ``like`` is can draw from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(like.device) if like.is_cuda else None


def drawn_since(state: RandomState, like: Tensor) -> bool:
    """Whether random numbers were drawn since."""
    now = random_state(like)
    cuda = state[1] is not None and now[1] is not None and not torch.equal(state[1], now[1])
    return cuda or not torch.equal(state[0], now[0])


@contextmanager
def repeated(state: RandomState | None, like: Tensor, modules: nn.Module) -> Iterator[None]:
    """Draws the same random numbers as then, and leaves the generators and the statistics of norms as they are.

    Args:
        state: from before the pass that is repeated; None where it drew nothing.
        like: a tensor of the device that is computed on.
        modules: what is run; its BatchNorm normalises by the batch again but does not count it again.
    """
    with torch.random.fork_rng([like.device] if like.is_cuda else [], enabled=state is not None), _uncounted(modules):
        if state is not None:
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1], like.device)
        yield


@contextmanager
def _uncounted(modules: nn.Module) -> Iterator[None]:
    norms = [m for m in modules.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
