"""The heads of Mask R-CNN (arXiv 1703.06870), of torchvision's parts, for the maps of any neck."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from cloverleaf.heads.regions import BOX_CELLS, Limits, RegionHead, RegionHeadSpec
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MaskRcnnHeadSpec(RegionHeadSpec):
    """Options of `MaskRcnnHead`: those of every region-based head."""

    type: Literal["mask-rcnn"] = "mask-rcnn"

    def build(self, features: FeatureSpec, num_classes: int) -> MaskRcnnHead:
        """The module for a neck's ``features``, freshly initialised.

        Raises:
            ConfigError: the anchors do not fit the levels, or the strides do not double from level to level.
        """
        return MaskRcnnHead(self, features, num_classes)

    def deployed(self) -> MaskRcnnHeadSpec:
        """The same: nothing of it is for training only."""
        return self


class MaskRcnnHead(RegionHead):
    """Region proposals, then box, class and mask of each region at once.

    Attributes:
        roi_heads: torchvision's heads for boxes, classes and masks; class 0 is background there.
    """

    def __init__(self, spec: MaskRcnnHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__(spec, features, num_classes)
        self.roi_heads = self.stage(
            spec,
            TwoMLPHead(self.width * BOX_CELLS**2, spec.representation),
            FastRCNNPredictor(spec.representation, num_classes + 1),
        )

    def detect(
        self, maps: OrderedDict[str, Tensor], regions: list[Tensor], size_hw: tuple[int, int], limits: Limits
    ) -> list[dict[str, Tensor]]:
        """As `RegionHead.detect`."""
        heads = copy.copy(self.roi_heads)  # shares all weights; only its numbers and its mode are the copy's own
        heads.training = False
        heads.score_thresh, heads.detections_per_img = limits.score, limits.detections
        found, _ = heads(maps, regions, [size_hw] * len(regions))
        return found
