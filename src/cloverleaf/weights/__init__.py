"""Weights: our files, and published state dicts in and out."""

from cloverleaf.weights.format import WeightsMetadata, load, read_metadata, save
from cloverleaf.weights.importer import export_state_dict, import_state_dict
from cloverleaf.weights.merge import merge

__all__ = ["WeightsMetadata", "export_state_dict", "import_state_dict", "load", "merge", "read_metadata", "save"]
