"""IFM, the information fusion modules: what is gathered becomes one global map per level."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_block import BlockKind, block
from cloverleaf.layers.style import Style
from cloverleaf.necks.gather_distribute.transformer import HighTransformer, TransformerForm


class LowIfm(nn.Module):
    """Low-stage IFM: 1x1, a few 3x3 blocks, 1x1, split on channels.

    Args:
        in_channels: gathered channels.
        width: of the blocks.
        depth: number of blocks.
        outputs: widths of the global maps, in the order of the split.
        kind: of the blocks.
    """

    def __init__(self, in_channels: int, width: int, depth: int, outputs: Sequence[int], *, kind: BlockKind) -> None:
        super().__init__()
        style = Style(activation="silu")
        self.outputs = tuple(outputs)
        self.enter = ConvNormAct(in_channels, width, style=style)
        self.blocks = nn.Sequential(*(block(kind, width, width) for _ in range(depth)))
        self.leave = ConvNormAct(width, sum(outputs), style=style)

    def forward(self, gathered: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, H, W)`` -> one ``(B, C_i, H, W)`` per output."""
        return self.leave(self.blocks(self.enter(gathered))).split(self.outputs, 1)


class HighIfm(nn.Module):
    """High-stage IFM: a transformer over the cells, a 1x1 convolution, split on channels.

    Args:
        channels: gathered channels, the width of the transformer.
        outputs: widths of the global maps, in the order of the split.
        form: of the transformer.
    """

    def __init__(self, channels: int, outputs: Sequence[int], *, form: TransformerForm) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.transformer = HighTransformer(channels, form)
        self.leave = nn.Conv2d(channels, sum(outputs), 1)

    def forward(self, gathered: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, H, W)`` -> one ``(B, C_i, H, W)`` per output."""
        return self.leave(self.transformer(gathered)).split(self.outputs, 1)
