"""YOLOR (arXiv 2105.04206) in the form of its paper, and in the form published with YOLOv7: the variants, as data.

The paper's networks normalise both paths of a cross-stage partial block together; those published with YOLOv7 normalise
each by itself, as darknet's form does, and differ from that only in the order of the pyramid pooling and in epsilon.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from cloverleaf.backbones.csp_stages import CspStagesSpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.models.yolov7 import P5_ANCHORS, P6_ANCHORS
from cloverleaf.necks.csp_pan import CspPanSpec

P6 = DetectorSpec(
    name="yolor-p6",
    backbone=CspStagesSpec(
        stem="space-to-depth", stem_channels=(64,), channels=(128, 256, 384, 512, 640), depths=(3, 7, 7, 3, 3),
        transition=False, norm="shared",
    ),
    neck=CspPanSpec(channels=(128, 192, 256, 320), depth=3, norm="shared", spp_order="itself-first"),
    head=AnchorHeadSpec(activation="silu", anchors_px=P6_ANCHORS),
)  # fmt: skip


def _changed(spec: DetectorSpec, name: str, *, backbone: Mapping[str, Any], neck: Mapping[str, Any]) -> DetectorSpec:
    """``spec`` with another name and other options of its parts."""
    return replace(
        spec,
        name=name,
        backbone=replace(cast(CspStagesSpec, spec.backbone), **backbone),
        neck=replace(cast(CspPanSpec, spec.neck), **neck),
    )


W6 = _changed(
    P6, "yolor-w6", backbone={"channels": (128, 256, 512, 768, 1024)}, neck={"channels": (128, 256, 384, 512)}
)
# Widths x 1.25, and DownC wherever a convolution halves its input.
E6 = _changed(
    W6,
    "yolor-e6",
    backbone={"stem_channels": (80,), "channels": (160, 320, 640, 960, 1280), "downsample": "pooled-csp"},
    neck={"channels": (160, 320, 480, 640), "downsample": "pooled-csp"},
)
D6 = _changed(E6, "yolor-d6", backbone={"depths": (3, 15, 15, 7, 7)}, neck={})

SSSS_S2D = DetectorSpec(
    name="yolor-ssss-s2d",
    backbone=CspStagesSpec(
        stem="space-to-depth-8", stem_channels=(), channels=(128, 256, 512), depths=(3, 3, 1), norm="shared"
    ),
    neck=CspPanSpec(channels=(64, 128, 256), depth=1, norm="shared", spp_order="itself-first"),
    head=AnchorHeadSpec(activation="silu", anchors_px=P5_ANCHORS),
)
SSSS_DWT = _changed(SSSS_S2D, "yolor-ssss-dwt", backbone={"stem": "wavelet-8"}, neck={})

CSP_V7 = DetectorSpec(
    name="yolor-csp-v7",
    backbone=CspStagesSpec(stem_channels=(32, 64), channels=(128, 256, 512, 1024), depths=(2, 8, 8, 4)),
    neck=CspPanSpec(channels=(128, 256, 512), depth=2, spp_order="itself-first"),
    head=AnchorHeadSpec(activation="silu", anchors_px=P5_ANCHORS),
)
CSP_X_V7 = _changed(
    CSP_V7,
    "yolor-csp-x-v7",
    backbone={"stem_channels": (40, 80), "channels": (160, 320, 640, 1280), "depths": (3, 11, 11, 5)},
    neck={"channels": (160, 320, 640), "depth": 3},
)


def _published_with_yolov7(spec: DetectorSpec) -> DetectorSpec:
    return _changed(spec, f"{spec.name}-v7", backbone={"norm": "separate"}, neck={"norm": "separate"})


VARIANTS: Mapping[str, Variant] = {
    "yolor-p6": Variant(P6, "YOLOR of four levels for large images, as in its paper", 1280),
    "yolor-w6": Variant(W6, "yolor-p6, wider", 1280),
    "yolor-e6": Variant(E6, "yolor-w6 with widths x 1.25 and pooled down-sampling", 1280),
    "yolor-d6": Variant(D6, "yolor-e6, its backbone twice as deep", 1280),
    "yolor-ssss-s2d": Variant(SSSS_S2D, "small YOLOR that reads 8 x 8 pixels as one cell"),
    "yolor-ssss-dwt": Variant(SSSS_DWT, "yolor-ssss-s2d behind three Haar wavelets"),
    "yolor-csp-v7": Variant(CSP_V7, "yolor-csp as published with YOLOv7"),
    "yolor-csp-x-v7": Variant(CSP_X_V7, "yolor-csp-v7 with depth x 1.33, widths x 1.25"),
    "yolor-p6-v7": Variant(_published_with_yolov7(P6), "yolor-p6 as published with YOLOv7: separate norms", 1280),
    "yolor-w6-v7": Variant(_published_with_yolov7(W6), "yolor-w6 as published with YOLOv7: separate norms", 1280),
    "yolor-e6-v7": Variant(_published_with_yolov7(E6), "yolor-e6 as published with YOLOv7: separate norms", 1280),
    "yolor-d6-v7": Variant(_published_with_yolov7(D6), "yolor-d6 as published with YOLOv7: separate norms", 1280),
}
