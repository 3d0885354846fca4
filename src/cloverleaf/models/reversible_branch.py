"""Programmable gradient information (YOLOv9, arXiv 2402.13616, section 3): a reversible branch that only teaches.

Deep layers lose what they need to predict well, and gradients that come through them say little of it. The paper adds
a branch that loses nothing, has a head of its own, and is dropped after training; the main branch learns from its
gradients, at every level from those of all objects, and needs not be reversible itself. The paper's branch is a second
backbone. Ours is one column of multi-level reversible units (arXiv 2212.11696), whose left column is the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.backbones.revcol.column import Column, Level
from cloverleaf.backbones.revcol.fusion import Fusion
from cloverleaf.errors import ConfigError
from cloverleaf.heads.light import AnyHeadSpec, light_head
from cloverleaf.layers.convnext import ChannelNorm, ConvNeXtBlock, initialise
from cloverleaf.losses.supervision import SourceWeights
from cloverleaf.losses.supervision_config import SupervisionLossConfig
from cloverleaf.structures import AuxiliaryOutput, FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ReversibleBranchSpec:
    """There is nothing to choose of `ReversibleBranch` but the weight of its loss, `loss.supervision.branch`."""

    type: Literal["reversible-branch"] = "reversible-branch"

    @property
    def reconstructs(self) -> bool:
        """No."""
        return False

    def build(
        self, backbone: nn.Module, strides: Sequence[int], head: AnyHeadSpec, num_classes: int
    ) -> ReversibleBranch:
        """The module for a model with that backbone, whose head reads maps of those strides.

        Raises:
            ConfigError: strides that do not double, or there is no further head for the task or a stride.
        """
        maps = cast(FeatureSpec, backbone.features)
        read = maps.since(strides[0])
        if any(coarse != 2 * fine for fine, coarse in pairwise(read.strides)):
            raise ConfigError(
                "model.supervision=reversible-branch does not fit this model",
                f"its backbone has maps of strides {read.strides}, and each level of the branch halves the one before",
                "choose a backbone whose strides double, or leave it out",
            )
        return ReversibleBranch(maps, read, light_head(read, strides, head, num_classes))


class ReversibleBranch(nn.Module):
    """The image and the backbone's maps to as many maps, of which a head of the model's kind predicts.

    c'_k = scale_k * c_k + F_k(image, c'_{k-1}, c_{k+1} ... c_n): each level adds, to what the backbone has there, what
    is finer in the branch and, projected and enlarged, everything coarser in the backbone. From the image and the maps
    c'_k the backbone's maps can be computed, so nothing is lost on the way to the branch's head.

    Args:
        maps: of the backbone.
        read: those of them that the branch reads: from the finest that the model's head predicts at.
        head: of the branch.

    Attributes:
        columns: none are read.
    """

    def __init__(self, maps: FeatureSpec, read: FeatureSpec, head: nn.Module) -> None:
        super().__init__()
        self.columns: tuple[int, ...] = ()
        self.skipped = len(maps) - len(read)
        widths, stride = read.channels, read.strides[0]
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], stride, stride), ChannelNorm(widths[0]))
        levels = [
            Level(
                Fusion(widths[max(k - 1, 0)], width, dict(enumerate(widths[k + 1 :])), halve=k > 0),
                [ConvNeXtBlock(width, expansion=1)],
            )
            for k, width in enumerate(widths)
        ]
        self.column = Column(levels, widths, first=False)
        self.stem.apply(initialise)
        self.column.apply(initialise)
        self.head = head

    def forward(self, images: Tensor, columns: Sequence[Sequence[Tensor]]) -> tuple[AuxiliaryOutput, ...]:
        """What its head says.

        Args:
            images: ``(B, 3, H, W)``.
            columns: the backbone's maps, finest first, in a list of their own.
        """
        maps = self.column(self.stem(images), tuple(columns[-1][self.skipped :]))
        raw: Any = self.head(maps)
        return (AuxiliaryOutput(raw),)

    @property
    def loss_options(self) -> frozenset[str]:
        """The option `loss.supervision.*` that counts."""
        return frozenset(["branch"])

    def weights(self, config: SupervisionLossConfig) -> tuple[SourceWeights, ...]:
        """Of the loss of its head."""
        return (SourceWeights(raw=config.branch),)
