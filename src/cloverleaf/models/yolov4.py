"""Scaled-YOLOv4 (arXiv 2011.08036) in the form published with YOLOR: the variants, as data."""

from __future__ import annotations

from collections.abc import Mapping

from cloverleaf.backbones.csp_stages import CspStagesSpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec, Anchors
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.models.yolov7 import P5_ANCHORS
from cloverleaf.necks.csp_pan import CspPanSpec

NORM_EPS = 1e-4  # of every norm in darknet's forms

# Published anchors, (width, height) in pixels, four per level. P6: strides 8 to 64; P7: strides 8 to 128.
P6_ANCHORS: Anchors = (
    ((13, 17), (31, 25), (24, 51), (61, 45)),
    ((61, 45), (48, 102), (119, 96), (97, 189)),
    ((97, 189), (217, 184), (171, 384), (324, 451)),
    ((324, 451), (545, 357), (616, 618), (1024, 1024)),
)
P7_ANCHORS: Anchors = (
    ((13, 17), (22, 25), (27, 66), (55, 41)),
    ((57, 88), (112, 69), (69, 177), (136, 138)),
    ((136, 138), (287, 114), (134, 275), (268, 248)),
    ((268, 248), (232, 504), (445, 416), (640, 640)),
    ((812, 393), (477, 808), (1070, 908), (1408, 1408)),
)

CSP = DetectorSpec(
    name="yolov4-csp",
    backbone=CspStagesSpec(
        stem_channels=(32, 64), channels=(128, 256, 512, 1024), depths=(2, 8, 8, 4), norm_eps=NORM_EPS
    ),
    neck=CspPanSpec(channels=(128, 256, 512), depth=2, norm_eps=NORM_EPS),
    head=AnchorHeadSpec(implicit=False, activation="silu", norm_eps=NORM_EPS, anchors_px=P5_ANCHORS),
)
CSP_X = DetectorSpec(
    name="yolov4-csp-x",
    backbone=CspStagesSpec(
        stem_channels=(32, 80), channels=(160, 320, 640, 1280), depths=(3, 10, 10, 5), norm_eps=NORM_EPS
    ),
    neck=CspPanSpec(channels=(160, 320, 640), depth=3, spp_mixes=2, norm_eps=NORM_EPS),
    head=CSP.head,
)
P6 = DetectorSpec(
    name="yolov4-p6",
    backbone=CspStagesSpec(
        stem="conv", stem_channels=(32,), channels=(64, 128, 256, 512, 1024, 1024), depths=(1, 3, 15, 15, 7, 7),
        activation="mish", norm_eps=NORM_EPS,
    ),
    neck=CspPanSpec(channels=(128, 256, 512, 512), depth=3, activation="mish", norm_eps=NORM_EPS),
    head=AnchorHeadSpec(implicit=False, activation="mish", norm_eps=NORM_EPS, anchors_px=P6_ANCHORS),
)  # fmt: skip
P7 = DetectorSpec(
    name="yolov4-p7",
    backbone=CspStagesSpec(
        stem="conv", stem_channels=(40,), channels=(80, 160, 320, 640, 1280, 1280, 1280),
        depths=(1, 3, 15, 15, 7, 7, 7), activation="mish", norm_eps=NORM_EPS,
    ),
    neck=CspPanSpec(channels=(160, 320, 640, 640, 640), depth=3, activation="mish", norm_eps=NORM_EPS),
    head=AnchorHeadSpec(implicit=False, activation="mish", norm_eps=NORM_EPS, anchors_px=P7_ANCHORS),
)  # fmt: skip

VARIANTS: Mapping[str, Variant] = {
    "yolov4-csp": Variant(CSP, "Scaled-YOLOv4: cross-stage partial blocks in backbone and neck"),
    "yolov4-csp-x": Variant(CSP_X, "yolov4-csp with depth x 1.33, widths x 1.25"),
    "yolov4-p6": Variant(P6, "Scaled-YOLOv4 of four levels for large images, Mish, four anchors per level", 1280),
    "yolov4-p7": Variant(P7, "Scaled-YOLOv4 of five levels for large images, Mish, four anchors per level", 1536),
}
