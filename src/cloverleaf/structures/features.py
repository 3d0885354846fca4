"""What a backbone promises to a neck, and a neck to a head."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Channels and strides of a list of feature maps, finest first.

    Attributes:
        channels: width of each map.
        strides: input pixels per cell of each map, strictly ascending.
        auxiliary: widths of as many further maps of the same strides, which follow the others in the list and are meant
            for auxiliary heads; None where there are none.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    auxiliary: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"{len(self.channels)} channels but {len(self.strides)} strides")
        if self.auxiliary is not None and len(self.auxiliary) != len(self.strides):
            raise ValueError(f"{len(self.auxiliary)} auxiliary channels but {len(self.strides)} strides")
        if list(self.strides) != sorted(set(self.strides)):
            raise ValueError(f"strides must be strictly ascending, got {self.strides}")

    def since(self, stride: int) -> FeatureSpec:
        """Without the maps that are finer than ``stride``."""
        kept = [i for i, of_map in enumerate(self.strides) if of_map >= stride]
        return FeatureSpec(tuple(self.channels[i] for i in kept), tuple(self.strides[i] for i in kept))

    def __len__(self) -> int:
        return len(self.channels)
