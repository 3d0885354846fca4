"""Whole images: pool, norm, linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.layers.implicit import BEFORE, NONE, Placements, absorbed, maybe_implicit, placed, width_behind
from cloverleaf.structures import ClassifyOutput, FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ClassifyHeadSpec:
    """Options of `ClassifyHead`.

    Attributes:
        implicit: implicit knowledge by placement: `task`, before the linear layer. It vanishes when deployed.
    """

    task: ClassVar[Literal["classify"]] = "classify"
    type: Literal["classify"] = "classify"
    implicit: Annotated[Placements | None, placed("head", task=BEFORE)] = None

    def build(self, features: FeatureSpec, num_classes: int) -> ClassifyHead:
        """The module for a neck's ``features``, freshly initialised."""
        return ClassifyHead(self, features, num_classes)

    def deployed(self) -> ClassifyHeadSpec:
        """The same head without implicit knowledge."""
        return replace(self, implicit=None)


class ClassifyHead(nn.Module):
    """Class logits from the mean of the coarsest map, normalised (arXiv 2212.11696, section 2.2; as in ConvNeXt).

    Attributes:
        num_classes: K.
        strides: input pixels per cell of each map that it is given.
    """

    def __init__(self, spec: ClassifyHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.strides = num_classes, features.strides
        self.norm = nn.LayerNorm(features.channels[-1], eps=1e-6)
        self.task = maybe_implicit((spec.implicit or NONE).task, features.channels[-1])
        self.linear = nn.Linear(width_behind(self.task, features.channels[-1]), num_classes)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Sequence[Tensor]) -> ClassifyOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first; the last is read."""
        return ClassifyOutput(self.linear(self.task(self.norm(features[-1].mean((2, 3))))))

    def deploy(self) -> None:
        """Fold implicit knowledge into the linear layer, in place."""
        self.linear, self.task = absorbed(self.linear, before=self.task), nn.Identity()
