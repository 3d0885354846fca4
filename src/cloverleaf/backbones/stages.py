"""A stem and four stages: the outline of most convolutional backbones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cloverleaf.structures import FeatureSpec


class Stages(nn.Module):
    """Image to maps of strides (4,) 8, 16 and 32; stages carry the stride of their output in their names.

    Args:
        stem: to stride 2.
        stages: each halves its input.
        channels: of the outputs of the stages.
        finest: stride of the finest map that is given.

    Attributes:
        features: what the maps are.
    """

    def __init__(
        self, stem: nn.Module, stages: Sequence[nn.Module], channels: Sequence[int], *, finest: int = 4
    ) -> None:
        super().__init__()
        self.features = FeatureSpec(channels=tuple(channels), strides=(4, 8, 16, 32)).since(finest)
        self.stem = stem
        self.stage4, self.stage8, self.stage16, self.stage32 = stages

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps of ``self.features``, finest first."""
        maps = [self.stage4(self.stem(images))]
        for stage in (self.stage8, self.stage16, self.stage32):
            maps.append(stage(maps[-1]))
        return tuple(maps[-len(self.features) :])
