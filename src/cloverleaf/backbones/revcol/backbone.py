"""RevCol as a backbone: a stem and reversible columns, of which the last one's maps are the features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.backbones.revcol.column import LEAST_SCALE, Column, Features, Level
from cloverleaf.backbones.revcol.fusions import FusionKind, build_fusion
from cloverleaf.backbones.revcol.recompute import Precision
from cloverleaf.backbones.revcol.reversible import run_reversibly
from cloverleaf.errors import ConfigError
from cloverleaf.layers.convnext import ChannelNorm, ConvNeXtBlock, initialise
from cloverleaf.layers.input_norm import NormalizingBackbone
from cloverleaf.layers.patches import NormedPatches
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style
from cloverleaf.structures import FeatureSpec

Memory = Literal["plain", "reversible", "anchored"]
Block = Literal["convnext", "rep"]
Width = Annotated[int, Field(ge=1, le=16384)]
Count = Annotated[int, Field(ge=1, le=64)]
STRIDES = (4, 8, 16, 32)
_GROWTH, _FURTHEST = 32.0, 8
_INEXACT = 2e-4


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RevColSpec:
    """Options of `RevCol`; the defaults are those of revcol-tiny.

    Attributes:
        channels: width of the four levels, finest first.
        layers: blocks of each level.
        columns: N.
        block: what levels are made of: the published `convnext` blocks, or `rep`: RepVGG blocks (3x3, 1x1 and identity,
            SiLU) with BatchNorm in place of every norm, all of which is folded into plain convolutions for inference.
        kernel_size: of the depthwise convolutions, odd; 3 with `rep`.
        drop_path: of the last block of every column; it rises linearly from the first, which has none.
        far_fusion: the finest level reads the coarsest map of the left column, too, as in revcol-huge.
        fusion: how a level merges what it reads: the published `sum`, `weighted` branches, or `attention` over all maps
            that it may read; both start as the sum.
        normalize: subtract ImageNet's mean and divide by its deviation, as published weights expect.
        memory: what is kept for the backward pass: everything (`plain`), the features of every column (`reversible`),
            or those of every r-th column (`anchored`).
        anchor_every: r; null chooses it from the scales, see `safe_distance`.
    """

    type: Literal["revcol"] = "revcol"
    channels: tuple[Width, Width, Width, Width] = (64, 128, 256, 512)
    layers: tuple[Count, Count, Count, Count] = (2, 2, 4, 2)
    columns: Count = 4
    block: Block = "convnext"
    kernel_size: Literal[1, 3, 5, 7, 9] = 3
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    far_fusion: bool = False
    fusion: FusionKind = "sum"
    normalize: bool = False
    memory: Memory = "reversible"
    anchor_every: Count | None = None

    def build(self) -> RevCol:
        """The module, freshly initialised.

        Raises:
            ConfigError: an option that the kind of blocks does not have, or that has no effect.
        """
        _check(self)
        return RevCol(self)


class RevCol(NormalizingBackbone):
    """Image to the four maps of the last column.

    Attributes:
        stem: patches of four pixels.
        columns: `Column` each.
        features: what the maps are.
    """

    def __init__(self, spec: RevColSpec) -> None:
        super().__init__(spec.normalize)
        self.memory, self.anchor_every = spec.memory, spec.anchor_every
        self._error: Tensor
        self.register_buffer("_error", torch.zeros(()), persistent=False)
        self._warned = False
        self.features = FeatureSpec(channels=spec.channels, strides=STRIDES)
        self.stem = NormedPatches(nn.Conv2d(3, spec.channels[0], 4, 4), ChannelNorm(spec.channels[0]))
        self.columns = nn.ModuleList(_column(spec, first=n == 0) for n in range(spec.columns))
        self.apply(initialise)
        if spec.block == "rep":
            _use_batch_norm(self)

    def forward(self, images: Tensor) -> Features:
        """``(B, 3, H, W)`` -> maps of strides 4, 8, 16, 32, finest first, float32; any size from 32 pixels up.

        Raises:
            ConfigError: the images are smaller, or have another shape.
        """
        return self.forward_columns(images)[-1]

    def forward_columns(self, images: Tensor, earlier: Sequence[int] = ()) -> list[Features]:
        """The features of some earlier columns, for heads that supervise them, and last those of the last one.

        Args:
            images: ``(B, 3, H, W)``.
            earlier: numbers of the earlier columns, from 0, ascending.

        Raises:
            ConfigError: as `forward`.
        """
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _check_images(images)
        stem = self.stem(self.prepared(images))
        saving = self.memory != "plain" and self.training and torch.is_grad_enabled()
        step = self._checked_distance(stem) if saving and self.memory == "anchored" else 1
        results: list[Features] = []
        features: Features = ()
        start = 0
        for end in _ends(len(self.columns), step, earlier):
            group = [column for column in self.columns[start : end + 1] if isinstance(column, Column)]
            if saving:
                features = run_reversibly(group, stem, features, self._error)
            else:
                for column in group:
                    features = column(stem, features)
            if end in earlier or end == len(self.columns) - 1:
                results.append(features)
            start = end + 1
        return results

    def _checked_distance(self, stem: Tensor) -> int:
        """`anchor_distance`, with a warning where the last backward pass found the inverse too inexact."""
        step, error = self.anchor_distance(), float(self._error)
        if error > _bound(Precision.current(stem)) and not self._warned:
            self._warned = True
            automatic = "model.backbone.anchor_every=null, which chooses a safe distance"
            warnings.warn(
                f"features reconstructed over {step} columns are off by {error:.0e} of their maximum, and gradients by "
                f"about as much: set {automatic if self.anchor_every else 'model.backbone.memory=reversible'}",
                stacklevel=2,
            )
        return step

    def anchor_distance(self) -> int:
        """Columns from one anchor to the next."""
        if self.anchor_every is not None:
            return self.anchor_every
        smallest = [scale.detach().abs().min() for column in self.columns for scale in column.scales]  # type: ignore[union-attr]
        return safe_distance(max(float(torch.stack(smallest).min()), LEAST_SCALE)) if smallest else 1


def _bound(precision: Precision) -> float:
    """Largest error of reconstructed features that needs no warning: autocast repeats levels no better than it rounds.

    Where it rounds, gradients are off by more than what comes from the inverse.
    """
    return max(_INEXACT, torch.finfo(precision.dtype).eps) if precision.enabled else _INEXACT


def safe_distance(scale: float) -> int:
    """Columns that can be reconstructed one from another in float32 while gradients stay within 1e-4 of plain ones.

    A column's inverse divides by the scale, and so do those of the levels that feed each other, so the rounding of one
    step grows by about 1 / scale^2 per column. It may grow thirty-fold (docs/fidelity.md, entry 117).

    Args:
        scale: smallest magnitude of any scale.
    """
    if scale >= 1:
        return _FURTHEST
    return min(1 + int(math.log(_GROWTH) / (2 * math.log(1 / scale))), _FURTHEST)


def _ends(columns: int, step: int, wanted: Sequence[int]) -> list[int]:
    """The last column of each group: every ``step``-th, those that are wanted, and the last."""
    return sorted({*range(step - 1, columns, step), *wanted, columns - 1})


def drop_rates(rate: float, layers: Sequence[int]) -> list[list[float]]:
    """Of the blocks of every level of a column: rising linearly with the depth in the column."""
    rates = iter(torch.linspace(0, rate, sum(layers)).tolist())
    return [[next(rates) for _ in range(count)] for count in layers]


def _column(spec: RevColSpec, *, first: bool) -> Column:
    levels = []
    for k, (channels, rates) in enumerate(zip(spec.channels, drop_rates(spec.drop_path, spec.layers), strict=True)):
        fusion = build_fusion(spec.fusion, k, spec.channels, first=first, far=spec.far_fusion)
        blocks = [_block(spec, channels, rate) for rate in rates]
        levels.append(Level(fusion, blocks))
    return Column(levels, spec.channels, first=first)


def _block(spec: RevColSpec, channels: int, drop_path: float) -> nn.Module:
    if spec.block == "rep":
        return RepConv(channels, channels, style=Style())
    return ConvNeXtBlock(channels, kernel_size=spec.kernel_size, drop_path=drop_path)


def _use_batch_norm(backbone: nn.Module) -> None:
    """BatchNorm in place of every norm over channels: it costs nothing once folded."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, ChannelNorm):
            backbone.set_submodule(name, Style().norm(len(module.weight)))


def _check(spec: RevColSpec) -> None:
    if spec.block == "rep":
        for name, usual in (("drop_path", 0.0), ("kernel_size", 3)):
            if (value := getattr(spec, name)) != usual:
                raise ConfigError(
                    f"backbone.{name} = {value} does not fit block = rep", f"its blocks have {name} {usual}",
                    "leave it out, or set block = convnext",
                )  # fmt: skip
    if spec.columns == 1:
        for name, without_effect in (("far_fusion", spec.far_fusion), ("fusion", spec.fusion == "weighted")):
            if without_effect:
                raise ConfigError(
                    f"backbone.{name} = {getattr(spec, name)} has no effect",
                    "it merges what comes from the left column, and the only column has none",
                    "set columns to 2 or more, or leave it out",
                )
    if spec.anchor_every is not None and spec.memory != "anchored":
        raise ConfigError(
            f"backbone.anchor_every = {spec.anchor_every} has no effect", f"memory is {spec.memory}",
            "set memory = anchored, or leave it out",
        )  # fmt: skip


def _check_images(images: Tensor) -> None:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < STRIDES[-1]:
        raise ConfigError(
            f"reversible columns cannot read images of shape {shape}",
            f"they need (B, 3, H, W) with sides of {STRIDES[-1]} pixels or more, a cell of the coarsest map",
            "enlarge or pad the images",
        )
