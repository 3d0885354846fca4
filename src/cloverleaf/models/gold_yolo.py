"""Gold-YOLO (arXiv 2309.11331): the variants, as data."""

from __future__ import annotations

from collections.abc import Mapping

from cloverleaf.backbones.efficient_rep import CspBepSpec, EfficientRepSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec

N = DetectorSpec(
    name="gold-yolo-n",
    backbone=EfficientRepSpec(width=0.25),
    neck=GatherDistributeSpec(low_channels=(32, 64), high_channels=(64, 128), low_width=96),
    head=DenseHeadSpec(),
)
S = DetectorSpec(
    name="gold-yolo-s",
    backbone=EfficientRepSpec(width=0.5),
    neck=GatherDistributeSpec(low_channels=(64, 128), high_channels=(128, 256), low_width=128),
    head=DenseHeadSpec(),
)
M = DetectorSpec(
    name="gold-yolo-m",
    backbone=CspBepSpec(width=0.75, depth=0.6, expansion=2 / 3),
    neck=GatherDistributeSpec(
        low_channels=(96, 192), high_channels=(192, 384), low_width=192, depth=7, body="csp", expansion=2 / 3
    ),
    head=DenseHeadSpec(),
)
L = DetectorSpec(
    name="gold-yolo-l",
    backbone=CspBepSpec(width=1.0, depth=1.0, expansion=0.5, block="conv"),
    neck=GatherDistributeSpec(
        low_channels=(128, 256), high_channels=(256, 512), low_width=192, depth=12, body="csp", expansion=0.5,
        block="conv", high_depth=3, heads=8, chained=False,
    ),
    head=DenseHeadSpec(),
)  # fmt: skip

VARIANTS: Mapping[str, Variant] = {
    "gold-yolo-n": Variant(N, "gather-and-distribute neck on EfficientRep, anchor-free head"),
    "gold-yolo-s": Variant(S, "gold-yolo-n at twice the width"),
    "gold-yolo-m": Variant(M, "cross-stage partial blocks of RepVGG blocks, three times the width of n"),
    "gold-yolo-l": Variant(L, "cross-stage partial blocks of convolutions, four times the width of n"),
}
