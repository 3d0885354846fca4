"""Detectors in the style of YOLOv5, v7, v8 and v9 (arXiv 2402.13616), with their own backbones or RevCol: as data.

They are re-creations from public descriptions: the blocks, the way that levels meet and the kind of head are those of
the styles, while widths, heads and losses are this library's (docs/yolo-styles.md). There are no published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloverleaf.backbones.csp_darknet import CspDarknetSpec
from cloverleaf.backbones.gelan import GelanSpec
from cloverleaf.backbones.revcol.variants import REAL_TIME
from cloverleaf.heads.anchor_based import TINY_ANCHORS, AnchorHeadSpec, Anchors
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.reversible_branch import ReversibleBranchSpec
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.necks.c2f_pan import C2fPanSpec
from cloverleaf.necks.c3_pan import C3PanSpec
from cloverleaf.necks.elan_pan import ElanPanSpec
from cloverleaf.necks.gelan_pan import GelanPanSpec

# (width, height) in pixels for strides 4 to 32; those of stride 4 are half of those of stride 8.
P2_ANCHORS: Anchors = (tuple((w / 2, h / 2) for w, h in TINY_ANCHORS[0]), *TINY_ANCHORS)
_PICO, _NANO = REAL_TIME["revcol-pico-rep"], REAL_TIME["revcol-nano-rep"]
_BINS = 15  # largest distance: 16 bins, as published for both styles

V5N = DetectorSpec(
    name="yolov5n",
    backbone=CspDarknetSpec(block="c3"),
    neck=C3PanSpec(channels=(64, 128, 256)),
    head=AnchorHeadSpec(implicit=False, stem="none", activation="silu"),
)
V7_TINY_REVCOL = DetectorSpec(
    name="yolov7-tiny-revcol",
    backbone=_NANO,
    neck=ElanPanSpec(channels=(64, 128, 256)),
    head=AnchorHeadSpec(),
)
V8N = DetectorSpec(
    name="yolov8n",
    backbone=CspDarknetSpec(block="c2f"),
    neck=C2fPanSpec(channels=(64, 128, 256)),
    head=DenseHeadSpec(reg_max=_BINS),
)
V9T = DetectorSpec(
    name="yolov9t",
    backbone=GelanSpec(),
    neck=GelanPanSpec(channels=(64, 96, 128)),
    head=DenseHeadSpec(reg_max=_BINS),
    supervision=ReversibleBranchSpec(),
)


def _with(spec: DetectorSpec, backbone: Any) -> DetectorSpec:
    return replace(spec, name=f"{spec.name}-revcol", backbone=backbone)


def _p2(spec: DetectorSpec) -> DetectorSpec:
    """With one more level, of stride 4, for small objects."""
    neck: Any = spec.neck
    neck = replace(neck, finest=4, channels=(neck.channels[0] // 2, *neck.channels))
    head = replace(spec.head, anchors_px=P2_ANCHORS) if isinstance(spec.head, AnchorHeadSpec) else spec.head
    return replace(spec, name=f"{spec.name}-p2", neck=neck, head=head)


def _family(spec: DetectorSpec, description: str) -> dict[str, Variant]:
    """A model and its form with a stride-4 level."""
    finer = _p2(spec)
    return {
        spec.name: Variant(spec, description),
        finer.name: Variant(finer, f"{spec.name} with a stride-4 level for small objects"),
    }


VARIANTS: Mapping[str, Variant] = {
    "yolov5n": Variant(V5N, "YOLOv5-style: C3 blocks, anchors"),
    **_family(_with(V5N, _PICO), "YOLOv5-style neck and head on RevCol (pico)"),
    **_family(V7_TINY_REVCOL, "YOLOv7-tiny's neck and head on RevCol (nano)"),
    "yolov8n": Variant(V8N, "YOLOv8-style: C2f blocks, anchor-free head"),
    **_family(_with(V8N, _PICO), "YOLOv8-style neck and head on RevCol (pico)"),
    "yolov9t": Variant(V9T, "YOLOv9-style: GELAN blocks, anchor-free head, auxiliary reversible branch in training"),
    **_family(_with(V9T, _PICO), "YOLOv9-style neck and head on RevCol (pico)"),
}
