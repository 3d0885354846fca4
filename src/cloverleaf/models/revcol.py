"""RevCol as classifiers (arXiv 2212.11696): the published sizes, and smaller ones that suit detectors."""

from __future__ import annotations

from collections.abc import Mapping

from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.backbones.revcol.variants import DETECTOR_SIZED, PUBLISHED
from cloverleaf.heads.classify import ClassifyHeadSpec
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.necks.none import NoNeckSpec

_IMAGENET_CLASSES = 1000
_SIZES = {"revcol-huge": 640}  # the others were published at 224 pixels


def _classifier(name: str, backbone: RevColSpec) -> Variant:
    spec = DetectorSpec(
        name=name, backbone=backbone, neck=NoNeckSpec(), head=ClassifyHeadSpec(), num_classes=_IMAGENET_CLASSES
    )
    origin = "" if name in PUBLISHED else ", of a size for detectors"
    return Variant(spec, f"classes: RevCol, {backbone.columns} columns{origin}", _SIZES.get(name, 224))


VARIANTS: Mapping[str, Variant] = {
    name: _classifier(name, backbone) for name, backbone in {**PUBLISHED, **DETECTOR_SIZED}.items()
}
