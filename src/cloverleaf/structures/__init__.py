"""Nouns shared by every part: frozen, validated, without behaviour beyond their own data."""

from cloverleaf.structures.assignment import (
    AnchorAssigner,
    AnchorAssignment,
    AuxiliaryAssigner,
    PointAssigner,
    PointAssignment,
)
from cloverleaf.structures.batch import Batch, Targets
from cloverleaf.structures.by_epoch import ByEpoch
from cloverleaf.structures.classification import Classification
from cloverleaf.structures.detections import Detections
from cloverleaf.structures.features import FeatureSpec
from cloverleaf.structures.label_map import LabelMap
from cloverleaf.structures.masks import Mask
from cloverleaf.structures.outputs import (
    AidedOutput,
    AnchorOutput,
    AuxiliaryOutput,
    ClassifyOutput,
    DenseOutput,
    MultiOutput,
    SupervisedOutput,
)
from cloverleaf.structures.sample import Polygons, Sample
from cloverleaf.structures.segmentation import Instances, PixelOutput, RegionOutput, SemanticOutput

__all__ = [
    "AidedOutput",
    "AnchorAssigner",
    "AnchorAssignment",
    "AnchorOutput",
    "AuxiliaryAssigner",
    "AuxiliaryOutput",
    "Batch",
    "ByEpoch",
    "Classification",
    "ClassifyOutput",
    "DenseOutput",
    "Detections",
    "FeatureSpec",
    "Instances",
    "LabelMap",
    "Mask",
    "MultiOutput",
    "PixelOutput",
    "PointAssigner",
    "PointAssignment",
    "Polygons",
    "RegionOutput",
    "Sample",
    "SemanticOutput",
    "SupervisedOutput",
    "Targets",
]
