"""Cross-stage partial blocks with one normalisation over both paths, and the wavelet that reads images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.csp_shared_norm import (
    SharedNormCspBlock,
    SharedNormJoin,
    SharedNormReversedCspBlock,
    SharedNormSpp,
)
from cloverleaf.layers.downsample import HaarWavelet, SpaceToDepth
from cloverleaf.layers.rep import reparameterize
from cloverleaf.layers.style import Style
from cloverleaf.models.catalog import create_model

STYLE = Style()
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "with a transition": lambda: SharedNormCspBlock(16, 24, 2, transition=True, style=STYLE),
    "without": lambda: SharedNormCspBlock(16, 24, 2, style=STYLE),
    "reversed": lambda: SharedNormReversedCspBlock(16, 24, 2, style=STYLE),
    "pyramid pooling": lambda: SharedNormSpp(16, 24, style=STYLE),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_shared_norm_is_cut_and_folded(name: str) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(BLOCKS[name]()).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.uniform_(0.3, 1.5)
    folded = reparameterize(block)
    x = torch.rand(2, 16, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), block(x), rtol=1e-10, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    before, after = ([m for m in part.modules() if isinstance(m, nn.Conv2d)] for part in (block, folded))
    # A path that ends in an activation needs one channel-wise layer in place of its share of the norm, no other does.
    assert len(after) - len(before) == (0 if name == "with a transition" else 1)
    assert all(conv.groups in (1, conv.in_channels) for conv in after)


def test_a_path_without_transition_keeps_its_width() -> None:
    with pytest.raises(ValueError, match="keeps its 8 channels, not 12"):
        SharedNormJoin(8, 8, 12, transition=False, style=STYLE)


def test_wavelet_and_squares_are_the_published_ones(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    numbers = {key: torch.from_numpy(value) for key, value in golden("yolor/ops").items()}
    for module, name in ((HaarWavelet(3), "dwt"), (SpaceToDepth(), "reorg")):
        torch.testing.assert_close(module(numbers["x"]), numbers[name], rtol=0, atol=1e-6)


def test_the_wavelet_loses_nothing() -> None:
    x = torch.rand(2, 5, 8, 12, dtype=torch.float64)
    y = HaarWavelet(5).double()(x)
    assert y.shape == (2, 20, 4, 6) and y.min() >= 0 and y.max() <= 1
    mean, (rows, columns, diagonal) = y[:, :5], (y[:, 5:].unflatten(1, (5, 3)) - 0.5).unbind(2)
    back = torch.empty_like(x)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        back[..., i::2, j::2] = mean + (1 - 2 * i) * rows + (1 - 2 * j) * columns + (1 - 2 * i) * (1 - 2 * j) * diagonal
    torch.testing.assert_close(back, x)


def test_a_stem_without_convolutions_takes_no_widths() -> None:
    with pytest.raises(ConfigError, match="takes 0 widths"):
        create_model("csp-stages+csp-pan+anchor", backbone={"stem": "wavelet-8"})
