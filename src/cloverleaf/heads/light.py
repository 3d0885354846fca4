"""Heads of a model's own kind for maps that no neck has prepared; they teach in training and are then dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.convnext import ChannelNorm
from cloverleaf.structures import FeatureSpec

TASKS = ("detect", "classify")  # those whose heads can stand on any maps
_WIDEST = 128


class AnyHeadSpec(Protocol):
    """What is used of a head's options."""

    @property
    def task(self) -> str:
        """What it is for."""

    def build(self, features: FeatureSpec, num_classes: int) -> nn.Module:
        """The module."""

    def deployed(self) -> AnyHeadSpec:
        """Options of the head without what only training needs."""


class LightHead(nn.Module):
    """Maps are normalised and brought to the width of the finest one that is read, at most 128; the head follows.

    Args:
        maps: what it is given.
        strides: those of the maps that it reads.
        head: options of the model's head; what only its training needs is left out.
        num_classes: K.
    """

    def __init__(self, maps: FeatureSpec, strides: Sequence[int], head: AnyHeadSpec, num_classes: int) -> None:
        super().__init__()
        self.levels = tuple(maps.strides.index(stride) for stride in strides)
        width = min(maps.channels[self.levels[0]], _WIDEST)
        self.projections = nn.ModuleList(
            nn.Sequential(ChannelNorm(maps.channels[level]), nn.Conv2d(maps.channels[level], width, 1))
            for level in self.levels
        )
        self.head = head.deployed().build(FeatureSpec((width,) * len(self.levels), tuple(strides)), num_classes)
        anchors: Any = getattr(self.head, "anchors_px", None)
        if anchors is not None:  # those that count are the ones of the model's head, which may be fitted to the data
            self.head.register_buffer("anchors_px", anchors, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> Any:
        """``(B, C_l, H_l, W_l)``, finest first -> raw output of the head."""
        return self.head(
            [project(maps[level]) for level, project in zip(self.levels, self.projections, strict=True)]
        )  # fmt: skip


def light_head(maps: FeatureSpec, strides: Sequence[int], head: AnyHeadSpec, num_classes: int) -> nn.Module:
    """A head for unprepared ``maps``: a classifier as it is, which normalises by itself, or a `LightHead`.

    Raises:
        ConfigError: the task has no such heads, or there is no map of a stride that the model's head reads.
    """
    if head.task not in TASKS:
        raise ConfigError(
            f"no further heads for --task {head.task}", f"they exist for {' and '.join(TASKS)}",
            "leave model.supervision out, or let it reconstruct only: model.supervision.heads=false",
        )  # fmt: skip
    if head.task == "classify":
        return head.deployed().build(maps, num_classes)
    if missing := [stride for stride in strides if stride not in maps.strides]:
        raise ConfigError(
            f"no further heads at stride {missing[0]}",
            f"the model's head reads maps of strides {tuple(strides)}, and the backbone has {maps.strides}",
            "choose a neck that keeps to the strides of its backbone, or leave model.supervision out",
        )
    return LightHead(maps, strides, head, num_classes)
