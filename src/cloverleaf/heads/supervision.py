"""Intermediate supervision of a backbone in columns (RevCol, arXiv 2212.11696, section 2.3)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.heads.light import TASKS, AnyHeadSpec, light_head
from cloverleaf.heads.reconstruction import FullDecoder, SimpleDecoder
from cloverleaf.losses.supervision import SourceWeights, compound_weights
from cloverleaf.losses.supervision_config import SupervisionLossConfig
from cloverleaf.structures import AuxiliaryOutput, FeatureSpec

_PARTS = 4  # published
_MOST_CLASSES = 1000  # with which the full decoder was published

DecoderKind = Literal["full", "simple", "none"]


@runtime_checkable
class ColumnBackbone(Protocol):
    """A backbone in columns, each of which has maps like those of the last."""

    columns: nn.ModuleList
    features: FeatureSpec

    def forward_columns(self, images: Tensor, earlier: Sequence[int] = ()) -> list[tuple[Tensor, ...]]:
        """The maps of some earlier columns, and last those of the last one."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ColumnSupervisionSpec:
    """Options of `ColumnSupervision`.

    Attributes:
        parts: groups of neighbouring columns; the last column of each but the last group is supervised. Null for the
            published 4, or the number of columns where there are fewer.
        heads: a light head of the model's task on each of these columns; null where the task is classification or
            detection.
        decoder: what reconstructs the image from each: `full` (as published for up to 1000 classes), `simple` (for
            more) or `none`; null chooses by the number of classes.
    """

    type: Literal["columns"] = "columns"
    parts: Annotated[int, Field(ge=2, le=64)] | None = None
    heads: bool | None = None
    decoder: DecoderKind | None = None

    @property
    def reconstructs(self) -> bool:
        """Whether there are decoders."""
        return self.decoder != "none"

    def build(
        self, backbone: nn.Module, strides: Sequence[int], head: AnyHeadSpec, num_classes: int
    ) -> ColumnSupervision:
        """The module for a model with that backbone, whose head reads maps of those strides.

        Raises:
            ConfigError: the backbone has no columns, or too few; there are no such heads; or nothing is left.
        """
        if not isinstance(backbone, ColumnBackbone):
            raise ConfigError(
                "model.supervision=columns does not fit this model", "its backbone has no columns",
                "choose a RevCol backbone, such as revcol-nano, or leave it out",
            )  # fmt: skip
        heads = head.task in TASKS if self.heads is None else self.heads
        decoder = self.decoder or ("full" if num_classes <= _MOST_CLASSES else "simple")
        if not heads and decoder == "none":
            raise ConfigError(
                "model.supervision=columns has nothing to teach with", "it has neither heads nor decoders",
                "set model.supervision.decoder=full, or leave the supervision out",
            )  # fmt: skip
        columns = supervised_columns(len(backbone.columns), self.parts)
        maps = backbone.features
        return ColumnSupervision(
            columns,
            [light_head(maps, strides, head, num_classes) for _ in columns] if heads else [],
            [_decoder(decoder, maps) for _ in columns] if decoder != "none" else [],
        )


def supervised_columns(columns: int, parts: int | None = None) -> tuple[int, ...]:
    """Numbers of the earlier columns that are supervised: the last of each of ``parts`` even groups but the last group.

    Where ``parts`` divides ``columns``, as published, these are every (columns / parts)-th.

    Raises:
        ConfigError: there is no earlier column, or there are fewer columns than parts.
    """
    if columns < 2:
        raise ConfigError(
            "no column to supervise", "the backbone has one, which the model's head supervises",
            "set model.backbone.columns to 2 or more, or leave model.supervision out",
        )  # fmt: skip
    wanted = min(_PARTS, columns) if parts is None else parts
    if wanted > columns:
        raise ConfigError(
            f"model.supervision.parts = {wanted} is not possible here", f"the backbone has {columns} columns",
            f"use at most {columns}",
        )  # fmt: skip
    return tuple((j + 1) * columns // wanted - 1 for j in range(wanted - 1))


class ColumnSupervision(nn.Module):
    """Heads and decoders on the coarsest maps of earlier columns, heads of detectors on those that their head reads.

    Attributes:
        columns: numbers of the columns, ascending.
        heads: one for each, or none at all.
        decoders: one for each, or none at all.
    """

    def __init__(self, columns: Sequence[int], heads: Sequence[nn.Module], decoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.heads, self.decoders = nn.ModuleList(heads), nn.ModuleList(decoders)

    def forward(self, images: Tensor, columns: Sequence[Sequence[Tensor]]) -> tuple[AuxiliaryOutput, ...]:
        """What each supervised column says.

        Args:
            images: ``(B, 3, H, W)``.
            columns: maps of the supervised columns, finest first, and last those of the last one, which are not read.
        """
        size_hw = (images.shape[2], images.shape[3])
        earlier = columns[: len(self.columns)]
        raw: list[Any] = [head(maps) for head, maps in zip(self.heads, earlier, strict=False)]
        pictures: list[Any] = [
            decoder(maps[-1], size_hw) for decoder, maps in zip(self.decoders, earlier, strict=False)
        ]
        return tuple(AuxiliaryOutput(*said) for said in itertools.zip_longest(raw, pictures))

    @property
    def loss_options(self) -> frozenset[str]:
        """The options `loss.supervision.*` that count."""
        return frozenset((["falling"] if self.decoders else []) + (["rising"] if self.heads else []))

    def weights(self, config: SupervisionLossConfig) -> tuple[SourceWeights, ...]:
        """Of the losses of each column."""
        return compound_weights(len(self.columns), config.falling, config.rising)


def _decoder(kind: DecoderKind, maps: FeatureSpec) -> nn.Module:
    if kind == "full":
        return FullDecoder(maps.channels, maps.strides[0])
    return SimpleDecoder(maps.channels[-1], maps.strides[-1])
