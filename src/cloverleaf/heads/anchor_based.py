"""The anchor-based head of YOLOR and YOLOv7 (arXiv 2105.04206, 2207.02696), with implicit knowledge by option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.heads.anchor_decode import decode_anchors
from cloverleaf.heads.anchor_level import AnchorLevel, LevelKnowledge, Stem, anchor_level
from cloverleaf.layers.implicit import (
    ADDEND,
    AFTER,
    BEFORE,
    FACTOR,
    NONE,
    RELEASED,
    Placements,
    placed_or_released,
)
from cloverleaf.layers.style import Activation, NormEps, Style
from cloverleaf.structures import AnchorOutput, FeatureSpec

AnchorImplicit = Annotated[
    bool | Placements, placed_or_released("head", align=BEFORE, refine=AFTER, anchor=FACTOR, offset=ADDEND)
]
Side = Annotated[float, Field(gt=0)]
Anchors = tuple[tuple[tuple[Side, Side], ...], ...]

# Published anchors of YOLOv7-tiny: (width, height) in pixels, for strides 8, 16 and 32.
TINY_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AnchorHeadSpec:
    """Options of `AnchorHead`.

    Attributes:
        implicit: true: learn an addend before and a factor after the last convolution, as released; or a mapping of
            placements: `align` before it, `refine` after it, `anchor` (a factor on the logits of width and height) and
            `offset` (an addend on those of x and y). All vanish when deployed.
        stem: before the last convolution of each level a 3x3 convolution, a RepConv, or nothing.
        width: multiplies the width of the stem, which is twice that of its input at 1.0.
        auxiliary: a second head on the neck's auxiliary maps, for deep supervision; it vanishes when fused.
        auxiliary_width: multiplies the width of the auxiliary head's stem, which is twice that of its input at 1.0.
        bins: above 0 width and height are classified into so many bins and refined (SigmoidBin), not regressed.
        activation: of the stems.
        norm_eps: epsilon of the stems' BatchNorms.
        anchors_px: per level its anchors (width, height) in pixels, finest level first.
    """

    task: ClassVar[Literal["detect"]] = "detect"
    type: Literal["anchor"] = "anchor"
    implicit: AnchorImplicit = True
    stem: Stem = "conv"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    auxiliary: bool = False
    auxiliary_width: Annotated[float, Field(gt=0, le=8)] = 1.0
    bins: Annotated[int, Field(ge=0, le=256)] = 0
    activation: Activation = "leaky_relu"
    norm_eps: NormEps = 1e-3
    anchors_px: Anchors = TINY_ANCHORS

    def build(self, features: FeatureSpec, num_classes: int) -> AnchorHead:
        """The module for a neck's ``features``, freshly initialised."""
        return AnchorHead(self, features, num_classes)

    def deployed(self) -> AnchorHeadSpec:
        """The same head without what only training needs: implicit knowledge and the auxiliary head."""
        return replace(self, implicit=False, auxiliary=False)

    @property
    def placements(self) -> Placements:
        """What `implicit` stands for."""
        return self.implicit if isinstance(self.implicit, Placements) else RELEASED if self.implicit else NONE

    def outputs_per_anchor(self, num_classes: int) -> int:
        """Values per anchor and cell: x, y, the two sides, objectness and K classes."""
        return 3 + 2 * (1 + self.bins) + num_classes


class AnchorHead(nn.Module):
    """Raw box, objectness and class logits per anchor and cell.

    Attributes:
        anchors_px: buffer ``(L, A, 2)``, the only place where anchors are kept.
        strides: input pixels per cell of each level.
        levels: one `AnchorLevel` per level, the lead head.
        auxiliary: the same for the auxiliary head, which never has implicit knowledge; empty without one.
        bins: bins of the box sides; 0 where they are regressed.
    """

    anchors_px: Tensor

    def __init__(self, spec: AnchorHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        check_anchors(spec.anchors_px, features.strides)
        self.num_classes = num_classes
        self.strides = features.strides
        self.num_anchors = len(spec.anchors_px[0])
        self.bins = spec.bins
        outputs = self.num_anchors * spec.outputs_per_anchor(num_classes)
        style = Style(activation=spec.activation, norm_eps=spec.norm_eps)
        self.levels = nn.ModuleList(
            anchor_level(spec.stem, channels, spec.width, outputs, style, _knowledge(spec, num_classes))
            for channels in features.channels
        )
        self.auxiliary = nn.ModuleList(
            anchor_level("none" if spec.stem == "none" else "conv", channels, spec.auxiliary_width, outputs, style)
            for channels in _auxiliary_channels(spec, features)
        )
        self.register_buffer("anchors_px", torch.tensor(spec.anchors_px, dtype=torch.float32))
        self._add_bias_prior()

    @torch.no_grad()
    def _add_bias_prior(self) -> None:
        """Expect 8 objects in a 640 px image and equally frequent classes, whatever the training size."""
        for levels in (self.levels, self.auxiliary):
            for level, stride in zip(levels, self.strides, strict=False):
                assert isinstance(level, AnchorLevel) and level.project.bias is not None
                bias = level.project.bias.view(self.num_anchors, -1)
                bias[:, -self.num_classes - 1] += math.log(8 / (640 / stride) ** 2)
                bias[:, -self.num_classes :] += math.log(0.6 / (self.num_classes - 0.99))

    def forward(self, features: Sequence[Tensor]) -> AnchorOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first, auxiliary ones last -> logits per level.

        ``(B, A, H_l, W_l, 5 + K)``, or K + 3 + 2 (bins + 1) at the end where the sides are classified into bins.
        """
        count = len(self.levels)
        lead = [self._raw(level(x)) for level, x in zip(self.levels, features[:count], strict=True)]
        auxiliary = [self._raw(level(x)) for level, x in zip(self.auxiliary, features[count:], strict=False)]
        return AnchorOutput(tuple(lead), tuple(auxiliary) or None)

    def _raw(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.num_anchors, -1)).permute(0, 1, 3, 4, 2)

    def decode(self, raw: AnchorOutput, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes ``(B, N, 4)`` xyxy in input pixels and scores ``(B, N, K)``; see `decode_anchors`.

        Raises:
            ConfigError: ``raw`` does not come from images of ``size_hw``.
        """
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            found = [tuple(level.shape[2:4]) for level in raw.levels]
            expected = [(size_hw[0] // stride, size_hw[1] // stride) for stride in self.strides]
            if found != expected:
                raise ConfigError(
                    f"raw output does not come from images of size {size_hw}",
                    f"its levels have sizes {found}, expected {expected}",
                    "pass the (height, width) of the network input",
                )
        return decode_anchors(raw.levels, self.anchors_px, self.strides, self.bins)

    def deploy(self) -> None:
        """Fold implicit knowledge and drop the auxiliary head, in place; stems stay as they are."""
        levels = [level for level in self.levels if isinstance(level, AnchorLevel)]
        self.levels = nn.ModuleList(level.reparameterized() for level in levels)
        self.auxiliary = nn.ModuleList()

    @torch.no_grad()
    def set_anchors(self, anchors_px: Tensor) -> None:
        """Replace the anchors by ``(L, A, 2)`` of the same shape, in pixels, finest level first."""
        if anchors_px.shape != self.anchors_px.shape:
            raise ConfigError(
                "new anchors do not fit the head",
                f"expected shape {tuple(self.anchors_px.shape)}, got {tuple(anchors_px.shape)}",
                "give as many levels and anchors as the model has",
            )
        check_anchors(anchors_px.tolist(), self.strides)
        self.anchors_px.copy_(anchors_px)


def _knowledge(spec: AnchorHeadSpec, num_classes: int) -> LevelKnowledge:
    placements = spec.placements
    if placements.anchor is not None and spec.bins:
        raise ConfigError(
            "model.head.implicit.anchor has no meaning here",
            f"the sides of boxes are classified into {spec.bins} bins, whose logits are no sizes",
            "leave it out, or set model.head.bins=0",
        )
    starts = [anchor * spec.outputs_per_anchor(num_classes) for anchor in range(len(spec.anchors_px[0]))]
    centre, sides = (tuple(start + k for start in starts for k in pair) for pair in ((0, 1), (2, 3)))
    return LevelKnowledge(placements, sides, centre)


def _auxiliary_channels(spec: AnchorHeadSpec, features: FeatureSpec) -> tuple[int, ...]:
    if not spec.auxiliary:
        return ()
    if features.auxiliary is None:
        raise ConfigError(
            "head.auxiliary = true does not fit this neck", "the neck offers no auxiliary maps",
            "leave it out, or choose a neck with maps for auxiliary heads, e.g. elan-pan",
        )  # fmt: skip
    return features.auxiliary


def check_anchors(anchors_px: Sequence[Sequence[Sequence[float]]], strides: Sequence[int]) -> None:
    """Raise `ConfigError` unless there is one equally long, positive set per stride, the finest level first."""
    counts = [len(level) for level in anchors_px]
    if len(counts) != len(strides) or len(set(counts)) != 1 or not counts[0]:
        raise ConfigError(
            "head.anchors_px does not fit the feature levels",
            f"strides {tuple(strides)} need {len(strides)} equally long sets of anchors, got sets of {counts}",
            "give one set of (width, height) pairs per level, finest level first",
        )
    areas = [sum(w * h for w, h in level) for level in anchors_px]
    if areas[0] > areas[-1] or any(w <= 0 or h <= 0 for level in anchors_px for w, h in level):
        raise ConfigError(
            "head.anchors_px is in the wrong order or not positive",
            f"the finest level must hold the smallest anchors, got mean areas {[a / counts[0] for a in areas]}",
            "list the anchors of the smallest stride first, in pixels",
        )
