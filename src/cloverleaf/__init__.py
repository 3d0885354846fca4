"""Cloverleaf: real-time object detection whose parts compose.

The public API is loaded on first use, so that ``import cloverleaf`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cloverleaf.deploy.export import export
    from cloverleaf.errors import CloverleafError
    from cloverleaf.models.catalog import create_model, list_models
    from cloverleaf.predict.evaluate import evaluate
    from cloverleaf.predict.predictor import Predictor
    from cloverleaf.recipes.api import train
    from cloverleaf.structures.detections import Detections
    from cloverleaf.tracking.options import TrackOptions
    from cloverleaf.tracking.tracker import Tracker
    from cloverleaf.weights.format import load, save

_PUBLIC = {
    "CloverleafError": "cloverleaf.errors",
    "Detections": "cloverleaf.structures.detections",
    "Predictor": "cloverleaf.predict.predictor",
    "TrackOptions": "cloverleaf.tracking.options",
    "Tracker": "cloverleaf.tracking.tracker",
    "create_model": "cloverleaf.models.catalog",
    "evaluate": "cloverleaf.predict.evaluate",
    "export": "cloverleaf.deploy.export",
    "list_models": "cloverleaf.models.catalog",
    "load": "cloverleaf.weights.format",
    "save": "cloverleaf.weights.format",
    "train": "cloverleaf.recipes.api",
}

__all__ = [
    "CloverleafError",
    "Detections",
    "Predictor",
    "TrackOptions",
    "Tracker",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "load",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("deploy", "weights"):  # `deploy.fuse`, `weights.import_state_dict` without importing them by hand
        return importlib.import_module(f"cloverleaf.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cloverleaf' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
