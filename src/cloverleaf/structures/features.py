"""What a backbone promises to a neck, and a neck to a head."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Channels and strides of a list of feature maps, finest first.

    Attributes:
        channels: width of each map.
        strides: input pixels per cell of each map, strictly ascending.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"{len(self.channels)} channels but {len(self.strides)} strides")
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must be strictly ascending, got {self.strides}")

    def __len__(self) -> int:
        return len(self.channels)
