"""Comparing tensors with stored golden numbers, whole or sampled."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def assert_matches(
    actual: Tensor | np.ndarray, golden: Mapping[str, np.ndarray], name: str, tolerance: float = 1e-4
) -> float:
    """Compare with ``golden[name]``, or with its samples: |ours - golden| <= tolerance * max(1, |golden|.max()).

    Returns:
        The largest difference over max(1, |golden|.max()).
    """
    value = actual.detach().cpu().double().numpy() if isinstance(actual, Tensor) else np.asarray(actual, np.float64)
    if name in golden:
        return _close(value, golden[name], name, tolerance)
    assert value.shape == tuple(golden[f"{name}.shape"]), f"{name}: shape {value.shape}"
    expected = golden[f"{name}.value"]
    error = _close(value.reshape(-1)[golden[f"{name}.index"]], expected, name, tolerance)
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    assert abs(value.mean() - golden[f"{name}.mean"]) <= limit, f"{name}: mean"
    assert abs(value.std() - golden[f"{name}.std"]) <= limit, f"{name}: standard deviation"
    return error


def _close(value: np.ndarray, expected: np.ndarray, name: str, tolerance: float) -> float:
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    assert value.shape == expected.shape, f"{name}: shape {value.shape} instead of {expected.shape}"
    worst = float(np.abs(value - expected).max())
    assert worst <= limit, f"{name}: differs by {worst:.3g}, allowed {limit:.3g}"
    return worst * tolerance / limit


def filled_state(keys: str, constants: Mapping[str, np.ndarray], gain: float) -> dict[str, Tensor]:
    """A published state dict filled by name.

    Args:
        keys: text of a ``keys/*.txt`` file: name, shape and type per line.
        constants: values of the names that are not filled.
        gain: of the fill rule.
    """
    from golden.fill import fill

    state = {}
    for line in keys.splitlines():
        name, shape, dtype = line.split("\t")
        size = tuple(int(side) for side in shape.strip("()").split(",") if side.strip())
        if dtype == "int64":
            state[name] = torch.zeros(size, dtype=torch.int64)
        elif name in constants:
            state[name] = torch.as_tensor(constants[name]).reshape(size)
        else:
            state[name] = torch.from_numpy(fill(name, size, gain))
    return state
