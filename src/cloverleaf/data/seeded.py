"""Repeatable numbers from libraries that draw from the global generators of Python, NumPy and PyTorch, as timm does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*stream: int) -> Iterator[None]:
    """Inside, the global generators (PyTorch's for the CPU) are seeded by ``stream``; afterwards they go on as before.

    Args:
        stream: whole numbers from 0, such as seed, epoch, index and purpose.
    """
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    first, second, third = np.random.SeedSequence(stream).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002
    torch.default_generator.manual_seed(third)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
