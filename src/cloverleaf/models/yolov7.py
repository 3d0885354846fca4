"""YOLOv7 (arXiv 2207.02696): the variants, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloverleaf.backbones.elan import ElanTinySpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.necks.elan_pan import ElanPanSpec

TINY = DetectorSpec(name="yolov7-tiny", backbone=ElanTinySpec(), neck=ElanPanSpec(), head=AnchorHeadSpec())
TINY_SILU = replace(
    TINY,
    name="yolov7-tiny-silu",
    backbone=ElanTinySpec(activation="silu"),
    neck=ElanPanSpec(activation="silu"),
    head=AnchorHeadSpec(activation="silu"),
)

VARIANTS: Mapping[str, Variant] = {
    "yolov7-tiny": Variant(TINY, "YOLOv7 for edge devices: ELAN of depth 2, LeakyReLU, implicit knowledge"),
    "yolov7-tiny-silu": Variant(TINY_SILU, "yolov7-tiny with SiLU activations"),
}
