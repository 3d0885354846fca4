"""Mask R-CNN (arXiv 1703.06870) and PointRend (arXiv 1912.08193) on ResNet-50, each with a feature pyramid (FPN) and
with gather and distribute (GD, arXiv 2309.11331) as its neck.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.heads.mask_rcnn import MaskRcnnHeadSpec
from cloverleaf.heads.point_rend import PointRendHeadSpec
from cloverleaf.models.spec import DetectorSpec, HeadSpec, NeckSpec, Variant
from cloverleaf.necks.fpn import FpnSpec
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec

# The paper replaces the neck and says nothing else (docs/fidelity.md, entry 100). Four levels as FPN has them, and
# widths with which the whole model costs as much more than with FPN as the published frame rates say.
GATHER_DISTRIBUTE = GatherDistributeSpec(finest=4, low_channels=(128, 128, 256), high_channels=(256, 256, 256), depth=1)


def _on_resnet50(name: str, neck: NeckSpec, head: HeadSpec) -> DetectorSpec:
    return DetectorSpec(name=name, backbone=TimmSpec(model="resnet50", normalize=True), neck=neck, head=head)


VARIANTS: Mapping[str, Variant] = {
    name: Variant(_on_resnet50(name, neck, head), description, 1024)
    for name, neck, head, description in (
        ("mask-rcnn-resnet50-fpn", FpnSpec(), MaskRcnnHeadSpec(), "instances: Mask R-CNN, feature pyramid"),
        (
            "mask-rcnn-resnet50-gd",
            GATHER_DISTRIBUTE,
            MaskRcnnHeadSpec(),
            "instances: Mask R-CNN, gather and distribute",
        ),
        ("point-rend-resnet50-fpn", FpnSpec(), PointRendHeadSpec(), "pixels: PointRend, feature pyramid"),
        ("point-rend-resnet50-gd", GATHER_DISTRIBUTE, PointRendHeadSpec(), "pixels: PointRend, gather and distribute"),
    )
}
