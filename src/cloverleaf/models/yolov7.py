"""YOLOv7 (arXiv 2207.02696): the variants, as data.

YOLOv7-X, E6 and D6 are compound-scaled from YOLOv7 and W6, as in the paper; what they change besides is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from cloverleaf.backbones.elan import ElanSpec, ElanTinySpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec, Anchors
from cloverleaf.models.scaling import compound_scale
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.necks.elan_pan import ElanPanSpec

# Published anchors, (width, height) in pixels. P5: strides 8 to 32; P6: strides 8 to 64.
P5_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
P6_ANCHORS: Anchors = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)

TINY = DetectorSpec(name="yolov7-tiny", backbone=ElanTinySpec(), neck=ElanPanSpec(), head=AnchorHeadSpec())
TINY_SILU = replace(
    TINY,
    name="yolov7-tiny-silu",
    backbone=ElanTinySpec(activation="silu"),
    neck=ElanPanSpec(activation="silu"),
    head=AnchorHeadSpec(activation="silu"),
)

BASE = DetectorSpec(
    name="yolov7",
    backbone=ElanSpec(),
    neck=ElanPanSpec(
        channels=(128, 256, 512), hidden=(128, 256, 512), chain=0.5, depth=4, spp="cspc", downsample="pooled-conv",
        activation="silu",
    ),
    head=AnchorHeadSpec(stem="rep", anchors_px=P5_ANCHORS, activation="silu"),
)  # fmt: skip


def _x() -> DetectorSpec:
    """Depth x 1.5; the neck's ELANs take the backbone's form (stack scaling), and plain convolutions end the neck."""
    scaled = compound_scale(BASE, depth=1.5, name="yolov7x")
    neck = replace(cast(ElanPanSpec, scaled.neck), chain=1.0, taken="every-second")
    return replace(scaled, neck=neck, head=replace(cast(AnchorHeadSpec, scaled.head), stem="conv"))


W6 = DetectorSpec(
    name="yolov7-w6",
    backbone=ElanSpec(
        stem="space-to-depth", stem_channels=(64,), hidden=(64, 128, 256, 384, 512),
        channels=(128, 256, 512, 768, 1024), downsample="conv",
    ),
    neck=ElanPanSpec(
        channels=(128, 256, 384, 512), hidden=(128, 256, 384, 512), chain=0.5, depth=4, spp="cspc", activation="silu",
    ),
    head=AnchorHeadSpec(auxiliary=True, auxiliary_width=1.25, anchors_px=P6_ANCHORS, activation="silu"),
)  # fmt: skip


def _from_w6(name: str, *, depth: float = 1.5, groups: int = 1) -> DetectorSpec:
    """W6 made deeper, with DownC instead of strided convolutions; the auxiliary head is as wide as the lead one."""
    scaled = compound_scale(W6, depth=depth, name=name)
    return replace(
        scaled,
        backbone=replace(cast(ElanSpec, scaled.backbone), downsample="pooled-csp", groups=groups),
        neck=replace(cast(ElanPanSpec, scaled.neck), downsample="pooled-csp", groups=groups),
        head=replace(cast(AnchorHeadSpec, scaled.head), auxiliary_width=1.0),
    )


VARIANTS: Mapping[str, Variant] = {
    "yolov7-tiny": Variant(TINY, "YOLOv7 for edge devices: ELAN of depth 2, LeakyReLU, implicit knowledge"),
    "yolov7-tiny-silu": Variant(TINY_SILU, "yolov7-tiny with SiLU activations"),
    "yolov7": Variant(BASE, "ELAN of depth 4, planned RepConv before the head, implicit knowledge"),
    "yolov7x": Variant(_x(), "yolov7 compound-scaled: depth x 1.5, transitions x 1.25"),
    "yolov7-w6": Variant(W6, "four levels for large images, auxiliary head", 1280),
    "yolov7-e6": Variant(_from_w6("yolov7-e6"), "yolov7-w6 compound-scaled: depth x 1.5, transitions x 1.25", 1280),
    "yolov7-d6": Variant(
        _from_w6("yolov7-d6", depth=2.0), "yolov7-w6 compound-scaled: depth x 2, transitions x 1.5", 1280
    ),
    "yolov7-e6e": Variant(
        _from_w6("yolov7-e6e", groups=2), "yolov7-e6 with E-ELAN of cardinality 2, partial auxiliary head", 1280
    ),
}
