"""No neck: a head that reads the backbone's maps as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoNeckSpec:
    """There is nothing to choose."""

    type: Literal["none"] = "none"

    def build(self, features: FeatureSpec) -> NoNeck:
        """The module for a backbone's ``features``."""
        return NoNeck(features)

    def deployed(self) -> NoNeckSpec:
        """The same."""
        return self


class NoNeck(nn.Module):
    """The maps that it is given.

    Attributes:
        features: what they are.
    """

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.features = features

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``(B, C_l, H_l, W_l)`` per level, finest first -> the same."""
        return tuple(maps)
