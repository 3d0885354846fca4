"""The decoupled anchor-free head of Gold-YOLO (arXiv 2309.11331), with the branches that only training needs."""

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
from cloverleaf.heads.anchor_based import Anchors, check_anchors
from cloverleaf.heads.dense_decode import decode_dense
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.implicit import AFTER, BEFORE, NONE, Placements, absorbed, maybe_implicit, placed, width_behind
from cloverleaf.layers.style import Activation, Style
from cloverleaf.structures import AidedOutput, DenseOutput, FeatureSpec

# Published anchors of the branch that aids training: (width, height) in pixels, for strides 8, 16 and 32.
AIDED_ANCHORS: Anchors = (
    ((10, 13), (19, 19), (33, 23)),
    ((30, 61), (59, 59), (59, 119)),
    ((116, 90), (185, 185), (373, 326)),
)
_PRIOR = 0.01  # probability of every class before training


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DenseHeadSpec:
    """Options of `DenseHead`.

    Attributes:
        reg_max: above 0 every side of a box is a distribution over the distances 0 ... `reg_max`, in cells (DFL, arXiv
            2006.04388); 0 predicts the distance itself.
        direct: a second box branch that predicts distances without distribution; the distribution is then for training
            only, as in the distilled n and s models.
        aided: an anchor-based branch beside the anchor-free one in training (anchor-aided training).
        anchors_px: per level the anchors (width, height) of that branch in pixels, finest level first; one set per
            level, published for strides 8, 16 and 32; null makes them from the strides.
        activation: of every convolution.
        implicit: implicit knowledge by placement: `align` before and `refine` behind the last convolutions of both
            branches. It vanishes when deployed.
    """

    task: ClassVar[Literal["detect"]] = "detect"
    type: Literal["dense"] = "dense"
    reg_max: Annotated[int, Field(ge=0, le=64)] = 16
    direct: bool = False
    aided: bool = False
    anchors_px: Anchors | None = None
    activation: Activation = "silu"
    implicit: Annotated[Placements | None, placed("head", align=BEFORE, refine=AFTER)] = None

    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead:
        """The module for a neck's ``features``, freshly initialised.

        Raises:
            ConfigError: anchors of a branch that there is not, or not one set per level.
        """
        return DenseHead(self, features, num_classes)

    def deployed(self) -> DenseHeadSpec:
        """The same head without what only training needs."""
        reg_max = 0 if self.direct else self.reg_max
        return replace(self, reg_max=reg_max, direct=False, aided=False, anchors_px=None, implicit=None)

    @property
    def bins(self) -> int:
        """R, the values that are predicted per side."""
        return self.reg_max + 1


class DenseLevel(nn.Module):
    """One level: a stem, then two branches of one convolution each, for classes and for boxes.

    Implicit knowledge is around the last convolutions of what is predicted, not of the anchor branch.
    """

    def __init__(self, channels: int, num_classes: int, spec: DenseHeadSpec, num_anchors: int) -> None:
        super().__init__()
        style = Style(activation=spec.activation)
        self.stem = ConvNormAct(channels, channels, style=style)
        self.class_conv = ConvNormAct(channels, channels, 3, style=style)
        self.box_conv = ConvNormAct(channels, channels, 3, style=style)
        held = spec.implicit or NONE
        self.align_classes, self.align_boxes = (maybe_implicit(held.align, channels, nth=nth) for nth in range(2))
        aligned = width_behind(self.align_classes, channels)
        self.classes = _projection(aligned, num_classes, -math.log((1 - _PRIOR) / _PRIOR))
        self.distances = _projection(aligned, 4 * spec.bins, 1.0)
        self.direct = _projection(aligned, 4, 1.0) if spec.direct else None
        self.refine_classes = maybe_implicit(held.refine, num_classes)
        self.refine_distances = maybe_implicit(held.refine, 4 * spec.bins, nth=1)
        self.refine_direct = maybe_implicit(held.refine if spec.direct else None, 4, nth=2)
        aided = num_anchors > 0
        self.aided_classes = (
            _projection(channels, num_anchors * num_classes, -math.log((1 - _PRIOR) / _PRIOR)) if aided else None
        )
        self.aided_boxes = _projection(channels, num_anchors * 4, 1.0) if aided else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, C, H, W)`` -> maps of that size: classes, distances, and those of the further branches that there are.

        These are direct distances, then the anchor branch's classes and boxes.
        """
        x = self.stem(x)
        for_classes, for_boxes = self.class_conv(x), self.box_conv(x)
        aligned_classes, aligned_boxes = self.align_classes(for_classes), self.align_boxes(for_boxes)
        further = [] if self.direct is None else [self.refine_direct(self.direct(aligned_boxes))]
        aided = ((self.aided_classes, for_classes), (self.aided_boxes, for_boxes))
        further += [branch(features) for branch, features in aided if branch is not None]
        classes = self.refine_classes(self.classes(aligned_classes))
        return classes, self.refine_distances(self.distances(aligned_boxes)), *further

    def deploy(self) -> None:
        """Fold implicit knowledge and drop what only training needs, in place."""
        self.classes = absorbed(self.classes, before=self.align_classes, after=[self.refine_classes])
        final, refine = self.distances, self.refine_distances
        if self.direct is not None:
            final, refine, self.direct = self.direct, self.refine_direct, None
        self.distances = absorbed(final, before=self.align_boxes, after=[refine])
        self.align_classes, self.align_boxes = nn.Identity(), nn.Identity()
        self.refine_classes, self.refine_distances, self.refine_direct = (nn.Identity() for _ in range(3))
        self.aided_classes = self.aided_boxes = None


class DenseHead(nn.Module):
    """Class logits and box distances for every cell.

    Attributes:
        num_classes: K.
        strides: input pixels per cell of each level.
        reg_max: largest distance of the distributions in cells; 0 without distributions.
        levels: one `DenseLevel` per level.
        anchors_px: buffer ``(L, A, 2)`` of the anchor branch; None without one.
    """

    anchors_px: Tensor | None

    def __init__(self, spec: DenseHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.strides, self.reg_max = num_classes, features.strides, spec.reg_max
        anchors = _anchors(spec, features.strides)
        num_anchors = anchors.shape[1] if anchors is not None else 0
        self.levels = nn.ModuleList(
            DenseLevel(channels, num_classes, spec, num_anchors) for channels in features.channels
        )
        self.register_buffer("anchors_px", anchors)

    def forward(self, features: Sequence[Tensor]) -> DenseOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> raw output; further maps (of auxiliary heads) are not read."""
        levels = [level(features[i]) for i, level in enumerate(self.levels)]
        classes, distances, *further = ([of_level[k] for of_level in levels] for k in range(len(levels[0])))
        aided = None
        if self.anchors_px is not None:
            *further, aided_classes, aided_boxes = further
            anchors = [of_level / stride for of_level, stride in zip(self.anchors_px, self.strides, strict=True)]
            logits = list(map(_anchor_rows, aided_classes, anchors))
            boxes = list(map(_aided_boxes, aided_boxes, anchors))
            aided = AidedOutput(torch.cat(logits, 1), torch.cat(boxes, 1))
        direct = _rows(further[0]) if further else None
        return DenseOutput(_rows(classes), _rows(distances), direct, aided)

    def decode(self, raw: DenseOutput, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes ``(B, N, 4)`` xyxy in input pixels and scores ``(B, N, K)``; see `decode_dense`."""
        return decode_dense(raw, self.strides, size_hw)

    @property
    def own_anchors_px(self) -> Anchors | None:
        """The option `anchors_px` that gives the present anchors; None where they are the usual ones or none."""
        if self.anchors_px is None or torch.equal(
            self.anchors_px.cpu(), torch.tensor(_usual_anchors(self.strides), dtype=torch.float32)
        ):
            return None
        return tuple(tuple((w, h) for w, h in level) for level in self.anchors_px.tolist())

    def deploy(self) -> None:
        """Fold implicit knowledge and drop what only training needs, in place."""
        for level in self.levels:
            assert isinstance(level, DenseLevel)
            if level.direct is not None:
                self.reg_max = 0
            level.deploy()
        self.anchors_px = None


def _projection(channels: int, outputs: int, bias: float) -> nn.Conv2d:
    """The last convolution of a branch: nothing but its bias counts at first."""
    projection = nn.Conv2d(channels, outputs, 1)
    assert projection.bias is not None
    nn.init.zeros_(projection.weight)
    nn.init.constant_(projection.bias, bias)
    return projection


def _rows(levels: Sequence[Tensor]) -> Tensor:
    """``(B, C, H_l, W_l)`` of every level -> ``(B, N, C)``."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1)


def _anchor_rows(x: Tensor, anchors: Tensor) -> Tensor:
    """``(B, A * C, H, W)`` -> ``(B, A * H * W, C)``."""
    return x.unflatten(1, (len(anchors), -1)).permute(0, 1, 3, 4, 2).flatten(1, 3)


def _aided_boxes(x: Tensor, anchors: Tensor) -> Tensor:
    """``(B, A * 4, H, W)`` -> ``(B, A * H * W, 4)``: the offset as it is, the size (2 sigmoid)^2 times the anchor."""
    boxes = x.unflatten(1, (len(anchors), 4)).permute(0, 1, 3, 4, 2)
    size = (boxes[..., 2:].sigmoid() * 2).square() * anchors[:, None, None]
    return torch.cat((boxes[..., :2], size), -1).flatten(1, 3)


def _anchors(spec: DenseHeadSpec, strides: tuple[int, ...]) -> Tensor | None:
    """Those of the anchor branch, if there is one."""
    if not spec.aided:
        if spec.anchors_px is not None:
            raise ConfigError(
                "head.anchors_px has no effect", "this head has no anchor branch",
                "add one with model.head.aided=true, or leave the anchors out",
            )  # fmt: skip
        return None
    anchors = spec.anchors_px or _usual_anchors(strides)
    check_anchors(anchors, strides)
    return torch.tensor(anchors, dtype=torch.float32)


def _usual_anchors(strides: tuple[int, ...]) -> Anchors:
    if strides == (8, 16, 32):
        return AIDED_ANCHORS
    return tuple(tuple((w * stride / 8, h * stride / 8) for w, h in AIDED_ANCHORS[0]) for stride in strides)
