"""UPerNet for semantic segmentation (arXiv 1807.10221): pyramid pooling on the coarsest map, then a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style
from cloverleaf.structures import FeatureSpec, PixelOutput

Width = Annotated[int, Field(ge=1, le=16384)]
Scale = Annotated[int, Field(ge=1, le=64)]

_STYLE = Style(activation="relu", norm_eps=1e-5, norm_momentum=0.1)
_AUXILIARY_STRIDE = 16


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UperNetHeadSpec:
    """Options of `UperNetHead`; the defaults are those published with RevCol.

    Attributes:
        width: channels of every level and of what is fused.
        pool_scales: sides, in cells, of the grids to which the coarsest map is pooled.
        dropout: share of the channels that are dropped before the last convolution, in training.
        auxiliary: a second head on the map of stride 16, in training only; it vanishes when deployed.
        auxiliary_width: its channels.
    """

    task: ClassVar[Literal["semantic"]] = "semantic"
    type: Literal["uper-net"] = "uper-net"
    width: Width = 512
    pool_scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (1, 2, 3, 6)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    auxiliary: bool = True
    auxiliary_width: Width = 256

    def build(self, features: FeatureSpec, num_classes: int) -> UperNetHead:
        """The module for a neck's or backbone's ``features``, freshly initialised.

        Raises:
            ConfigError: there is only one class or only one map, or none of stride 16 for the auxiliary head.
        """
        return UperNetHead(self, features, num_classes)

    def deployed(self) -> UperNetHeadSpec:
        """The same head without the auxiliary one."""
        return replace(self, auxiliary=False)


class UperNetHead(nn.Module):
    """Class logits on the grid of the finest map, from maps of all levels.

    The coarsest map is joined with itself pooled to a few cells; going from there to the finest, each level is added to
    the one before it, brought to its size. What results goes through a 3x3 convolution per level (but the coarsest),
    all levels are brought to the finest size, joined and fused by another. Sizes are brought up by bilinear
    interpolation, so maps of any sizes will do.

    Attributes:
        num_classes: K, with the background where there is one.
        strides: input pixels per cell of each level.
        pyramid: pyramid pooling of the coarsest level.
        lateral: 1x1 convolutions of the other levels, finest first.
        smooth: 3x3 convolutions of the other levels after the sum, finest first.
        fuse: from all levels to one.
        classes: from there to logits.
        auxiliary: from the map of stride 16 to logits, or None.
    """

    def __init__(self, spec: UperNetHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        _check(features.strides, num_classes)
        self.num_classes, self.strides = num_classes, features.strides
        *finer, coarsest = features.channels
        width = spec.width
        self.pyramid = PyramidPooling(coarsest, width, spec.pool_scales)
        self.lateral = nn.ModuleList(ConvNormAct(channels, width, style=_STYLE) for channels in finer)
        self.smooth = nn.ModuleList(ConvNormAct(width, width, 3, style=_STYLE) for _ in finer)
        self.fuse = ConvNormAct(len(features) * width, width, 3, style=_STYLE)
        self.classes = _classes(width, num_classes, spec.dropout)
        self.auxiliary: nn.Module | None = None
        if spec.auxiliary:
            self._auxiliary_level = _auxiliary_level(features.strides)
            self.auxiliary = nn.Sequential(
                ConvNormAct(features.channels[self._auxiliary_level], spec.auxiliary_width, 3, style=_STYLE),
                *_classes(spec.auxiliary_width, num_classes, spec.dropout),
            )

    def forward(self, features: Sequence[Tensor]) -> PixelOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> raw output; further maps (of auxiliary heads) are not read."""
        maps = features[: len(self.strides)]
        levels = [self.pyramid(maps[-1])]
        for lateral, x in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            levels.insert(0, lateral(x) + _resized(levels[0], x))
        levels[:-1] = [smooth(x) for smooth, x in zip(self.smooth, levels[:-1], strict=True)]
        joined = torch.cat([levels[0], *(_resized(x, levels[0]) for x in levels[1:])], 1)
        auxiliary = None if self.auxiliary is None else self.auxiliary(maps[self._auxiliary_level])
        return PixelOutput(self.classes(self.fuse(joined)), auxiliary)

    def segment(self, raw: PixelOutput, size_hw: tuple[int, int]) -> Tensor:
        """Class logits ``(B, K, H, W)``, float32, by bilinear interpolation.

        Args:
            raw: output of `forward`.
            size_hw: network-input size.

        Raises:
            ConfigError: ``raw`` does not come from images of ``size_hw``.
        """
        found, expected = tuple(raw.logits.shape[2:]), tuple(side // self.strides[0] for side in size_hw)
        if found != expected:
            raise ConfigError(
                f"raw output does not come from images of size {size_hw}",
                f"its logits have size {found}, expected {expected}",
                "pass the (height, width) of the network input",
            )
        return F.interpolate(raw.logits.float(), size=size_hw, mode="bilinear", align_corners=False)

    def deploy(self) -> None:
        """Drop the auxiliary head, in place."""
        self.auxiliary = None


class PyramidPooling(nn.Module):
    """A map joined with itself averaged over a few large cells (arXiv 1612.01105, section 3.2).

    Attributes:
        scales: sides of the grids, in cells.
        branches: a 1x1 convolution for each of them.
        join: a 3x3 convolution over the map and all branches.
    """

    def __init__(self, in_channels: int, width: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.scales = scales
        self.branches = nn.ModuleList(CellConv(in_channels, width, style=_STYLE) for _ in scales)
        self.join = ConvNormAct(in_channels + len(scales) * width, width, 3, style=_STYLE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, width, H, W)``."""
        pooled = [
            branch(F.adaptive_avg_pool2d(x, side)) for branch, side in zip(self.branches, self.scales, strict=True)
        ]
        return self.join(torch.cat([x, *(_resized(branch, x) for branch in pooled)], 1))


class CellConv(ConvNormAct):
    """A `ConvNormAct` that also takes a single cell of a single image in training.

    BatchNorm has no statistics of one value. It normalises with the running ones then, and leaves them as they are; see
    docs/fidelity.md, entry 148.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `ConvNormAct.forward`."""
        norm = self.norm
        if not norm.training or x.shape[0] * x.shape[2] * x.shape[3] > 1:
            return super().forward(x)
        y = F.batch_norm(self.conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.act(y)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def _classes(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))


def _auxiliary_level(strides: tuple[int, ...]) -> int:
    if _AUXILIARY_STRIDE not in strides:
        raise ConfigError(
            f"uper-net has no map for its auxiliary head among strides {strides}",
            f"that head reads the map of stride {_AUXILIARY_STRIDE}",
            "leave it out with model.head.auxiliary=false, or choose a backbone with such a map",
        )
    return strides.index(_AUXILIARY_STRIDE)


def _check(strides: tuple[int, ...], num_classes: int) -> None:
    if num_classes < 2:
        raise ConfigError(
            f"uper-net cannot tell {num_classes} class apart", "every pixel gets one of the classes",
            "count the background as a class of its own",
        )  # fmt: skip
    if len(strides) < 2:
        raise ConfigError(
            f"uper-net cannot read a single map of stride {strides[0]}",
            "it joins the maps of several levels",
            "choose a backbone with more levels, or one of finer maps such as strides 4, 8, 16 and 32",
        )
