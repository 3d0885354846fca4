"""Mask R-CNN (arXiv 1703.06870) and PointRend (arXiv 1912.08193) on ResNet-50, each with a feature pyramid (FPN) and
with gather and distribute (GD, arXiv 2309.11331) as its neck; Cascade Mask R-CNN (arXiv 1712.00726) and UPerNet (arXiv
1807.10221) on RevCol (arXiv 2212.11696).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloverleaf.backbones.revcol.variants import VARIANTS as REVCOL
from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.heads.cascade_mask_rcnn import CascadeMaskRcnnHeadSpec
from cloverleaf.heads.mask_rcnn import MaskRcnnHeadSpec
from cloverleaf.heads.point_rend import PointRendHeadSpec
from cloverleaf.heads.uper_net import UperNetHeadSpec
from cloverleaf.models.spec import DetectorSpec, HeadSpec, NeckSpec, Variant
from cloverleaf.necks.fpn import FpnSpec
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec
from cloverleaf.necks.none import NoNeckSpec

# The paper replaces the neck and says nothing else (docs/fidelity.md, entry 100). Four levels as FPN has them, and
# widths with which the whole model costs as much more than with FPN as the published frame rates say.
GATHER_DISTRIBUTE = GatherDistributeSpec(finest=4, low_channels=(128, 128, 256), high_channels=(256, 256, 256), depth=1)


def _on_resnet50(name: str, neck: NeckSpec, head: HeadSpec) -> DetectorSpec:
    return DetectorSpec(name=name, backbone=TimmSpec(model="resnet50", normalize=True), neck=neck, head=head)


# As published with RevCol, and small enough for a CPU and a few hundred images.
_DROP_PATH = 0.3
_NARROW_CASCADE = CascadeMaskRcnnHeadSpec(
    representation=256, box_layers=2, box_width=64, mask_layers=2, mask_width=64, train_proposals=500, proposals=300,
    box_samples=128,
)  # fmt: skip
_NARROW_UPER_NET = UperNetHeadSpec(width=96, auxiliary_width=48)


def _on_revcol(size: str, task: str, neck: NeckSpec, head: HeadSpec, drop_path: float, image_size: int) -> Variant:
    name = f"{head.type}-revcol-{size}"
    backbone = replace(REVCOL[f"revcol-{size}"], normalize=True, drop_path=drop_path)
    spec = DetectorSpec(name=name, backbone=backbone, neck=neck, head=head)
    return Variant(spec, task, image_size)


_REVCOL = (
    _on_revcol("tiny", "instances: Cascade Mask R-CNN", FpnSpec(), CascadeMaskRcnnHeadSpec(), _DROP_PATH, 1024),
    _on_revcol("nano", "instances: Cascade Mask R-CNN, narrow", FpnSpec(width=64), _NARROW_CASCADE, 0.0, 512),
    _on_revcol("tiny", "pixels: UPerNet", NoNeckSpec(), UperNetHeadSpec(), _DROP_PATH, 512),
    _on_revcol("nano", "pixels: UPerNet, narrow", NoNeckSpec(), _NARROW_UPER_NET, 0.0, 512),
)
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
} | {variant.spec.name: variant for variant in _REVCOL}
