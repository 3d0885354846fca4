"""The heads of Cascade Mask R-CNN (arXiv 1712.00726, 1906.09756): stages that each refine the boxes of the last."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import clip_boxes_to_image

from cloverleaf.errors import ConfigError
from cloverleaf.heads.regions import BOX_CELLS, Limits, RegionHead, RegionHeadSpec, Share, Width
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style
from cloverleaf.structures import FeatureSpec

Deviation = Annotated[float, Field(gt=0)]
Deviations = tuple[Deviation, Deviation, Deviation, Deviation]

_STYLE = Style(activation="relu", norm_eps=1e-5, norm_momentum=0.1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CascadeMaskRcnnHeadSpec(RegionHeadSpec):
    """Options of `CascadeMaskRcnnHead`: those of every region-based head, and of the stages, as RevCol has them.

    Attributes:
        overlaps: of each stage the IoU with an object from which on a region is positive, never falling.
        deviations: of each stage the expected deviations of (dx, dy, dw, dh), by which its deltas are divided.
        box_layers, box_width: number and width of the 3x3 convolutions, with BatchNorm and ReLU, for boxes and classes;
            0 for none.
        connected_layers: number of fully connected layers after them; 0 convolutions and 2 of these are the paper's.
        class_agnostic: one box per region instead of one per region and class.
        mask_stages: which stages have a head for masks; masks are averaged over `all` of them.
    """

    type: Literal["cascade-mask-rcnn"] = "cascade-mask-rcnn"
    overlaps: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.6, 0.7)
    deviations: tuple[Deviations, ...] = (
        (0.1, 0.1, 0.2, 0.2),
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    )
    box_layers: Annotated[int, Field(ge=0, le=16)] = 4
    box_width: Width = 256
    connected_layers: Annotated[int, Field(ge=1, le=4)] = 1
    class_agnostic: bool = False
    mask_stages: Literal["all", "last"] = "all"

    def build(self, features: FeatureSpec, num_classes: int) -> CascadeMaskRcnnHead:
        """The module for a neck's ``features``, freshly initialised.

        Raises:
            ConfigError: the anchors do not fit the levels, the strides do not double from level to level, or the stages
                do not fit each other.
        """
        _check_stages(self.overlaps, len(self.deviations))
        return CascadeMaskRcnnHead(self, features, num_classes)

    def deployed(self) -> CascadeMaskRcnnHeadSpec:
        """The same: nothing of it is for training only."""
        return self


class CascadeMaskRcnnHead(RegionHead):
    """Region proposals, then stages: each tells class and box of regions, and its boxes are the regions of the next.

    Scores are the mean of all stages' probabilities, each of the regions that the stage read; boxes are the last
    stage's, and masks the mean over the stages that have masks, in the final boxes (docs/fidelity.md, entry 146).

    Attributes:
        stages: torchvision's heads of regions each, with `overlap` and weights of the deltas of their own.
    """

    def __init__(self, spec: CascadeMaskRcnnHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__(spec, features, num_classes)
        predictor = AgnosticPredictor if spec.class_agnostic else FastRCNNPredictor
        last = len(spec.overlaps) - 1
        self.stages = nn.ModuleList(
            self.stage(
                spec,
                _box_head(spec, self.width),
                predictor(spec.representation, num_classes + 1),
                overlap=overlap,
                box_weights=tuple(1 / deviation for deviation in deviations),  # type: ignore[arg-type]
                masks=index == last or spec.mask_stages == "all",
            )
            for index, (overlap, deviations) in enumerate(zip(spec.overlaps, spec.deviations, strict=True))
        )

    def read(
        self, stage: int, maps: OrderedDict[str, Tensor], regions: list[Tensor], size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What a stage says of the regions of all images.

        Args:
            stage: counted from 0.
            maps: of `named_maps`.
            regions: ``(P_i, 4)`` of each image, xyxy in input pixels; P is the sum of all P_i.
            size_hw: network-input size.

        Returns:
            Logits ``(P, K + 1)``, the background first, and deltas ``(P, 4 (K + 1))``.
        """
        heads: Any = self.stages[stage]
        pooled = heads.box_roi_pool(maps, regions, [size_hw] * len(regions))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return logits, deltas

    def decoded(self, stage: int, deltas: Tensor, regions: list[Tensor], classes: Tensor) -> Tensor:
        """The boxes ``(P, 4)`` xyxy that a stage makes of regions, not clipped.

        Args:
            stage: counted from 0.
            deltas: ``(P, 4 (K + 1))``.
            regions: of each image, P in all.
            classes: ``(P,)``, 0 for the background: whose deltas are taken.
        """
        heads: Any = self.stages[stage]
        boxes: Tensor = heads.box_coder.decode(deltas, regions).reshape(-1, self.num_classes + 1, 4)
        return boxes[torch.arange(len(boxes), device=boxes.device), classes]

    def likeliest(self, logits: Tensor) -> Tensor:
        """Logits ``(P, K + 1)`` -> classes ``(P,)`` in 1 to K: the most likely object, never the background."""
        return logits[:, 1:].argmax(1) + 1

    @torch.no_grad()
    def refined(
        self, stage: int, deltas: Tensor, regions: list[Tensor], classes: Tensor, size_hw: tuple[int, int]
    ) -> list[Tensor]:
        """The regions of the next stage: as many, in the same order, inside the image of ``size_hw``, no gradient.

        Stage, deltas, regions and classes are those of `decoded`.
        """
        boxes = clip_boxes_to_image(self.decoded(stage, deltas, regions, classes), size_hw)
        return list(boxes.split([len(of_image) for of_image in regions]))

    def detect(
        self, maps: OrderedDict[str, Tensor], regions: list[Tensor], size_hw: tuple[int, int], limits: Limits
    ) -> list[dict[str, Tensor]]:
        """As `RegionHead.detect`."""
        probabilities, sizes, last = [], [size_hw] * len(regions), len(self.stages) - 1
        for stage in range(last + 1):
            logits, deltas = self.read(stage, maps, regions, size_hw)
            probabilities.append(logits.softmax(1))
            if stage < last:
                regions = self.refined(stage, deltas, regions, self.likeliest(logits), size_hw)
        heads: Any = copy(self.stages[last])  # shares all weights; only its numbers are the copy's own
        heads.score_thresh, heads.detections_per_img = limits.score, limits.detections
        mean = torch.stack(probabilities).mean(0)
        boxes, scores, labels = heads.postprocess_detections(mean.log(), deltas, regions, sizes)
        masks = self._masks(maps, boxes, labels, sizes)
        columns = zip(boxes, scores, labels, masks, strict=True)
        return [{"boxes": b, "scores": s, "labels": n, "masks": m} for b, s, n, m in columns]

    def _masks(
        self, maps: OrderedDict[str, Tensor], boxes: list[Tensor], labels: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Of each image ``(n, 1, 28, 28)`` probabilities of the found objects' own classes."""
        pooled, found = None, []
        stages: list[Any] = [heads for heads in self.stages if heads.mask_head is not None]
        for heads in stages:
            pooled = heads.mask_roi_pool(maps, boxes, sizes) if pooled is None else pooled  # the same of every stage
            found.append(torch.cat(maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), labels)))
        return list(torch.stack(found).mean(0).split([len(of_image) for of_image in boxes]))


class AgnosticPredictor(FastRCNNPredictor):
    """torchvision's predictor with one box per region, which is that of every class."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, C)`` -> logits ``(n, K + 1)`` and deltas ``(n, 4 (K + 1))``, the same for every class."""
        logits, deltas = super().forward(x)
        return logits, deltas.repeat(1, logits.shape[1])


def _box_head(spec: CascadeMaskRcnnHeadSpec, width: int) -> nn.Sequential:
    """``(n, width, 7, 7)`` -> ``(n, representation)``."""
    widths = [width, *(spec.box_width,) * spec.box_layers]
    convs = [ConvNormAct(before, after, 3, style=_STYLE) for before, after in pairwise(widths)]
    sides = [widths[-1] * BOX_CELLS**2, *(spec.representation,) * spec.connected_layers]
    connected = [layer for before, after in pairwise(sides) for layer in (nn.Linear(before, after), nn.ReLU())]
    return nn.Sequential(*convs, nn.Flatten(), *connected)


def _check_stages(overlaps: tuple[float, ...], deviations: int) -> None:
    if len(overlaps) != deviations:
        raise ConfigError(
            f"{len(overlaps)} stages by head.overlaps, {deviations} by head.deviations",
            "each stage has an overlap and four deviations",
            "give as many of both",
        )
    if list(overlaps) != sorted(overlaps):
        raise ConfigError(
            f"head.overlaps = {overlaps} fall", "a later stage reads better boxes and is to demand more of them",
            "give them in ascending order",
        )  # fmt: skip
