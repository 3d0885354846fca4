"""What region-based heads share: region proposals (arXiv 1506.01497) from all levels, and the way to instances."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from cloverleaf.errors import ConfigError
from cloverleaf.structures import FeatureSpec, Instances, RegionOutput

Count = Annotated[int, Field(ge=1, le=100_000)]
Width = Annotated[int, Field(ge=1, le=16384)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sides = tuple[Annotated[float, Field(gt=0)], ...]

BOX_CELLS, _MASK_CELLS = 7, 14  # published sizes of a pooled region, per side
_ANCHOR_CELLS = 8  # side of an anchor in cells of its level: 32 px at stride 4 ... 512 px at stride 64, as published
_DEFAULT_WIDTH = 256


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RegionHeadSpec:
    """Options that all region-based heads have; the defaults are the published ones for a feature pyramid.

    Attributes:
        width: of the maps that the head reads; 1x1 convolutions bring the neck's to it where theirs differ. None takes
            the neck's own if all are equal, and 256 otherwise.
        pooled_level: one more level for the region proposals, every second cell of the neck's coarsest map.
        anchor_sides_px: sides of the anchors of each level of the region proposals, finest first: the square root of
            their area, in pixels; None for one of eight cells on every level.
        anchor_ratios: heights of the anchors over their widths.
        representation: width of the fully connected layers for boxes and classes.
        mask_layers, mask_width: number and width of the 3x3 convolutions for masks.
        train_candidates, candidates: best anchors per level that may become regions, in training and otherwise.
        train_proposals, proposals: regions per image after suppression, in training and otherwise.
        proposal_iou: overlap from which on regions suppress each other.
        rpn_samples: anchors per image that the region proposals learn from, at most half of them positive.
        box_samples: regions per image that boxes, classes and masks learn from, at most a quarter positive.
        score_threshold: objects with a lower score are never given.
        nms_iou: overlap from which on objects of a class suppress each other.
        detections: most objects per image.
    """

    task: ClassVar[Literal["instance"]] = "instance"
    type: str = ""
    width: Width | None = None
    pooled_level: bool = True
    anchor_sides_px: tuple[Sides, ...] | None = None
    anchor_ratios: Annotated[Sides, Field(min_length=1)] = (0.5, 1.0, 2.0)
    representation: Width = 1024
    mask_layers: Annotated[int, Field(ge=1, le=16)] = 4
    mask_width: Width = 256
    train_candidates: Count = 2000
    train_proposals: Count = 2000
    candidates: Count = 1000
    proposals: Count = 1000
    proposal_iou: Share = 0.7
    rpn_samples: Count = 256
    box_samples: Count = 512
    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    nms_iou: Share = 0.5
    detections: Count = 100


@plain_dataclass(frozen=True, slots=True)
class Limits:
    """What may be given of an image.

    Attributes:
        score: objects with a lower one are left out.
        detections: most objects.
    """

    score: float
    detections: int


class RegionHead(nn.Module, ABC):
    """Region proposals from all levels; `instances` cuts features of the regions and tells box, class and mask of each.

    `forward` runs the region proposals' convolutions only: what comes after depends on their values, in training on the
    targets too, and belongs to `instances` and to the criterion (`cloverleaf.losses.regions`, `cloverleaf.losses.
    cascade`). Subclasses say in `detect` what becomes of regions.

    Attributes:
        num_classes: K.
        strides: input pixels per cell of each map that regions are cut from.
        width: of those maps once they are adapted.
        adapt: per level a 1x1 convolution to the width of the head, or nothing.
        detections: most objects per image.
        rpn: torchvision's region proposal network.
    """

    def __init__(self, spec: RegionHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        _check_strides(features.strides, spec.type)
        self.num_classes, self.strides = num_classes, features.strides
        same = len(set(features.channels)) == 1
        self.width = spec.width or (features.channels[0] if same else _DEFAULT_WIDTH)
        self.adapt = nn.ModuleList(
            nn.Identity() if channels == self.width else nn.Conv2d(channels, self.width, 1)
            for channels in features.channels
        )
        self.pooled_level = spec.pooled_level
        self.proposal_strides = (*self.strides, 2 * self.strides[-1]) if spec.pooled_level else self.strides
        self._score_threshold, self.detections = spec.score_threshold, spec.detections
        self.rpn = _region_proposals(spec, self.width, self.proposal_strides)

    def stage(
        self,
        spec: RegionHeadSpec,
        box_head: nn.Module,
        predictor: nn.Module,
        *,
        overlap: float = 0.5,
        box_weights: tuple[float, float, float, float] | None = None,
        masks: bool = True,
    ) -> RoIHeads:
        """torchvision's heads of regions, freshly initialised; class 0 is background there.

        Args:
            spec: options.
            box_head: ``(n, width, 7, 7)`` -> ``(n, representation)``.
            predictor: ``(n, representation)`` -> logits ``(n, K + 1)`` and deltas ``(n, 4 (K + 1))``.
            overlap: IoU with an object from which on a region is positive.
            box_weights: factors of (dx, dy, dw, dh); None for the published (10, 10, 5, 5).
            masks: whether it has a head for masks.
        """
        names = [str(level) for level in range(len(self.strides))]
        parts: dict[str, nn.Module] = {}
        if masks:
            parts = {
                "mask_roi_pool": MultiScaleRoIAlign(names, _MASK_CELLS, 2),
                "mask_head": MaskRCNNHeads(self.width, (spec.mask_width,) * spec.mask_layers, 1),
                "mask_predictor": MaskRCNNPredictor(spec.mask_width, spec.mask_width, self.num_classes + 1),
            }
        return RoIHeads(
            MultiScaleRoIAlign(names, BOX_CELLS, 2),
            box_head,
            predictor,
            fg_iou_thresh=overlap,
            bg_iou_thresh=overlap,
            batch_size_per_image=spec.box_samples,
            positive_fraction=0.25,
            bbox_reg_weights=box_weights,
            score_thresh=spec.score_threshold,
            nms_thresh=spec.nms_iou,
            detections_per_img=spec.detections,
            **parts,
        )

    @property
    def anchor_sides_px(self) -> tuple[tuple[float, ...], ...]:
        """Sides of the anchors of each level of the region proposals, finest first."""
        return tuple(tuple(level) for level in self.rpn.anchor_generator.sizes)

    def forward(self, features: Sequence[Tensor]) -> RegionOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> raw output; further maps (of auxiliary heads) are not read."""
        maps = [adapt(x) for adapt, x in zip(self.adapt, features, strict=False)]
        levels = [*maps, F.max_pool2d(maps[-1], 1, 2)] if self.pooled_level else maps
        objectness, deltas = self.rpn.head(levels)
        return RegionOutput(tuple(maps), tuple(objectness), tuple(deltas))

    def anchors(self, raw: RegionOutput) -> Tensor:
        """``(N, 4)`` xyxy in input pixels, in the order of `rows`; the same for every image."""
        first = raw.objectness[0]
        strides = [[first.new_tensor(stride, dtype=torch.int64)] * 2 for stride in self.proposal_strides]
        generator: AnchorGenerator = self.rpn.anchor_generator
        generator.set_cell_anchors(torch.float32, first.device)
        return torch.cat(generator.grid_anchors([list(x.shape[2:]) for x in raw.objectness], strides))

    def rows(self, raw: RegionOutput) -> tuple[Tensor, Tensor]:
        """Objectness ``(B, N)`` and deltas ``(B, N, 4)``, float32: by level, row, column, anchor."""
        objectness, deltas = concat_box_prediction_layers(list(raw.objectness), list(raw.deltas))
        return objectness.float().view(raw.batch_size, -1), deltas.float().view(raw.batch_size, -1, 4)

    @torch.no_grad()
    def proposals(self, raw: RegionOutput, size_hw: tuple[int, int], *, training: bool) -> list[Tensor]:
        """Regions ``(P_i, 4)`` of each image, xyxy in input pixels, the most likely objects first, without gradient.

        Args:
            raw: output of `forward`.
            size_hw: network-input size.
            training: how many are kept: `train_proposals` or `proposals`.
        """
        objectness, deltas = self.rows(raw)
        anchors = self.anchors(raw)
        boxes = self.rpn.box_coder.decode(deltas.flatten(0, 1), [anchors] * raw.batch_size)
        chosen = copy.copy(self.rpn)  # shares all parts; the mode says how many it keeps, and is not the model's here
        chosen.training = training
        counts = [level[0].numel() for level in raw.objectness]
        boxes, _ = chosen.filter_proposals(
            boxes.view(raw.batch_size, -1, 4), objectness, [size_hw] * raw.batch_size, counts
        )
        return list(boxes)

    @torch.no_grad()
    def instances(
        self, raw: RegionOutput, size_hw: tuple[int, int], *, confidence: float = 0.0, max_detections: int = 100
    ) -> list[Instances]:
        """The objects of each image, suppressed per class.

        Args:
            raw: output of `forward`.
            size_hw: network-input size.
            confidence: lowest score; `score_threshold` of the head where that is higher.
            max_detections: most objects per image; `detections` of the head where that is lower.

        Raises:
            ConfigError: ``raw`` does not come from images of ``size_hw``.
        """
        self.check_size(raw, size_hw)
        limits = Limits(max(confidence, self._score_threshold), min(max_detections, self.detections))
        with torch.autocast(raw.maps[0].device.type, enabled=False):
            regions = self.proposals(raw, size_hw, training=False)
            found = self.detect(self.named_maps(raw), regions, size_hw, limits)
        return [Instances(x["boxes"], x["scores"], x["labels"] - 1, x["masks"][:, 0]) for x in found]

    @abstractmethod
    def detect(
        self, maps: OrderedDict[str, Tensor], regions: list[Tensor], size_hw: tuple[int, int], limits: Limits
    ) -> list[dict[str, Tensor]]:
        """What lies in the regions.

        Args:
            maps: float32, named as `named_maps` names them.
            regions: ``(P_i, 4)`` of each image, xyxy in input pixels.
            size_hw: network-input size.
            limits: what is left out.

        Returns:
            Of each image ``boxes`` ``(n, 4)``, ``scores`` ``(n,)``, ``labels`` ``(n,)`` counted from 1 and ``masks``
            ``(n, 1, 28, 28)``.
        """

    @staticmethod
    def named_maps(raw: RegionOutput) -> OrderedDict[str, Tensor]:
        """The maps in float32, under the names by which torchvision's pooling asks for them."""
        return OrderedDict((str(level), x.float()) for level, x in enumerate(raw.maps))

    def deploy(self) -> None:
        """Nothing: every part is needed."""

    def check_size(self, raw: RegionOutput, size_hw: tuple[int, int]) -> None:
        """Raise `ConfigError` unless ``raw`` comes from images of ``size_hw``."""
        found = [tuple(x.shape[2:]) for x in raw.maps]
        expected = [(size_hw[0] // stride, size_hw[1] // stride) for stride in self.strides]
        if found != expected:
            raise ConfigError(
                f"raw output does not come from images of size {size_hw}",
                f"its maps have sizes {found}, expected {expected}",
                "pass the (height, width) of the network input",
            )


def _region_proposals(spec: RegionHeadSpec, width: int, strides: tuple[int, ...]) -> RegionProposalNetwork:
    sides = spec.anchor_sides_px or tuple((float(_ANCHOR_CELLS * stride),) for stride in strides)
    counts = [len(level) for level in sides]
    if len(counts) != len(strides) or len(set(counts)) != 1 or not counts[0]:
        raise ConfigError(
            "head.anchor_sides_px does not fit the levels of the region proposals",
            f"strides {strides} need {len(strides)} equally long sets of sides, got sets of {counts}",
            "give one set per level, finest level first; head.pooled_level adds a level",
        )
    anchors = AnchorGenerator(sides, (spec.anchor_ratios,) * len(strides))
    return RegionProposalNetwork(
        anchors,
        RPNHead(width, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=spec.rpn_samples,
        positive_fraction=0.5,
        pre_nms_top_n={"training": spec.train_candidates, "testing": spec.candidates},
        post_nms_top_n={"training": spec.train_proposals, "testing": spec.proposals},
        nms_thresh=spec.proposal_iou,
    )


def _check_strides(strides: tuple[int, ...], head: str) -> None:
    """The level of a region follows from its size, which takes levels of doubling strides (arXiv 1612.03144, eq. 1)."""
    doubling = all(fine * 2 == coarse for fine, coarse in pairwise(strides))
    if not doubling or strides[0] & (strides[0] - 1):
        raise ConfigError(
            f"{head} cannot read maps of strides {strides}",
            "a region is cut from the level that fits its size, for which strides must be powers of two that double",
            "choose a backbone and a neck with such maps, e.g. strides 4, 8, 16 and 32",
        )
