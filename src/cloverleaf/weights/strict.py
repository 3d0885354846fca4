"""Putting tensors into a model: all of them, nothing else, or an error that lists every difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cloverleaf.errors import CheckpointError
from cloverleaf.models.detector import Detector

Shape = tuple[int, ...]


def check_fit(what: str, expected: Mapping[str, Shape], found: Mapping[str, Shape], fix: str) -> None:
    """Raise `CheckpointError` that lists keys which are missing, left over or mis-shaped."""
    missing = [key for key in expected if key not in found]
    left_over = [key for key in found if key not in expected]
    misshaped = [
        f"{key} {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    problems = [
        _listed(title, keys)
        for title, keys in (("missing", missing), ("left over", left_over), ("mis-shaped", misshaped))
        if keys
    ]
    if problems:
        raise CheckpointError(what, "; ".join(problems), fix)


def fill_detector(model: Detector, tensors: Mapping[str, Tensor]) -> Detector:
    """Give ``model`` all its tensors (checked before); floating-point ones become float32 copies."""
    owned = {
        key: value.detach().to(
            device="cpu",
            dtype=torch.float32 if value.is_floating_point() else torch.int64,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        for key, value in tensors.items()
    }
    model.load_state_dict(owned, strict=True, assign=True)
    return model


def shapes(module: nn.Module) -> dict[str, Shape]:
    """Shape of every entry of the state dict."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _listed(title: str, keys: Sequence[str], limit: int = 8) -> str:
    more = f", and {len(keys) - limit} more" if len(keys) > limit else ""
    return f"{len(keys)} {title}: {', '.join(keys[:limit])}{more}"
