"""Weights: our files, and published checkpoints in and out."""

from cloverleaf.weights.format import WeightsMetadata, load, read_metadata, save
from cloverleaf.weights.importer import export_state_dict, import_state_dict
from cloverleaf.weights.merge import merge
from cloverleaf.weights.published import import_checkpoint
from cloverleaf.weights.reader import read_checkpoint, read_official
from cloverleaf.weights.transfer import with_num_classes

__all__ = [
    "WeightsMetadata",
    "export_state_dict",
    "import_checkpoint",
    "import_state_dict",
    "load",
    "merge",
    "read_checkpoint",
    "read_metadata",
    "read_official",
    "save",
    "with_num_classes",
]
