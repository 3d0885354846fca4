"""YOLOR (arXiv 2105.04206) in darknet's form, as data: Scaled-YOLOv4's networks with implicit knowledge in the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from cloverleaf.backbones.csp_stages import CspStagesSpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models import yolov4
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.models.yolov4 import NORM_EPS
from cloverleaf.models.yolov7 import P6_ANCHORS
from cloverleaf.necks.csp_pan import CspPanSpec


def _with_implicit_knowledge(name: str, spec: DetectorSpec) -> DetectorSpec:
    return replace(spec, name=name, head=replace(cast(AnchorHeadSpec, spec.head), implicit=True))


P6 = DetectorSpec(
    name="yolor-p6-darknet",
    backbone=CspStagesSpec(
        stem="space-to-depth", stem_channels=(64,), channels=(128, 256, 384, 512, 640), depths=(3, 7, 7, 3, 3),
        transition=False, norm_eps=NORM_EPS,
    ),
    neck=CspPanSpec(channels=(128, 192, 256, 320), depth=3, norm_eps=NORM_EPS),
    head=AnchorHeadSpec(activation="silu", norm_eps=NORM_EPS, anchors_px=P6_ANCHORS),
)  # fmt: skip
W6 = replace(
    P6,
    name="yolor-w6-darknet",
    backbone=replace(cast(CspStagesSpec, P6.backbone), channels=(128, 256, 512, 768, 1024)),
    neck=replace(cast(CspPanSpec, P6.neck), channels=(128, 256, 384, 512)),
)

VARIANTS: Mapping[str, Variant] = {
    "yolor-csp": Variant(_with_implicit_knowledge("yolor-csp", yolov4.CSP), "yolov4-csp with implicit knowledge"),
    "yolor-csp-x": Variant(
        _with_implicit_knowledge("yolor-csp-x", yolov4.CSP_X), "yolov4-csp-x with implicit knowledge"
    ),
    "yolor-p6-darknet": Variant(P6, "YOLOR of four levels for large images, in the form of darknet's files", 1280),
    "yolor-w6-darknet": Variant(W6, "yolor-p6-darknet, wider", 1280),
}
