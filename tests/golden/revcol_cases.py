"""RevCol filled by its published names, as the golden numbers were measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec
from cloverleaf.weights.importers import revcol_table as table
from golden.fill import fill

SMALL = {"channels": (8, 16, 24, 32), "layers": (1, 1, 2, 1)}  # of the golden small configuration
HUGE = {"channels": (8, 12, 16, 20), "layers": (1, 2, 1, 1), "columns": 2, "far_fusion": True}


def published_names(spec: RevColSpec, prefix: str = "") -> dict[str, str]:
    """Our names of a backbone's tensors, with ``prefix`` -> the published ones."""
    return {ours: theirs for ours, theirs in table.backbone(spec, prefix) if ours is not None}


def filled_backbone(spec: RevColSpec, scale: float = 1.0) -> RevCol:
    """The module with every tensor filled; the reversible scales are multiplied by ``scale``."""
    model = spec.build()
    fill_module(model, published_names(spec), scale)
    return model


def fill_module(module: nn.Module, names: dict[str, str], scale: float = 1.0) -> None:
    """Fill the tensors of ``module`` named in ``names`` (ours -> published), which must be all of them."""
    state = module.state_dict()
    assert state.keys() == names.keys()
    with torch.no_grad():
        for ours, theirs in names.items():
            value = filled(theirs, tuple(state[ours].shape))
            state[ours].copy_(value * scale if ".alpha" in theirs else value)


def filled(theirs: str, shape: tuple[int, ...]) -> Tensor:
    """The values of one tensor; published 1x1 convolutions inside columns are matrices, which changes nothing."""
    return torch.from_numpy(fill(theirs, shape))
