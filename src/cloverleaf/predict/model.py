"""From a weights file or a detector in memory to a model that is ready to run."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from cloverleaf.deploy.input_size import trained_image_size
from cloverleaf.models.detector import Detector


def prepare_model(weights_or_model: str | Path | Detector, device: torch.device, *, fuse: bool = True) -> Detector:
    """A detector in evaluation mode on ``device``, in channels_last memory; one given in memory is copied.

    Args:
        weights_or_model: a weights file or a detector.
        device: where it shall run.
        fuse: fold normalisation, re-parameterised blocks and implicit knowledge into the convolutions.

    Raises:
        CheckpointError: the file is missing, damaged or not a weights file.
    """
    if isinstance(weights_or_model, str | Path):
        from cloverleaf.weights.format import load

        model = load(weights_or_model)
    else:
        model = weights_or_model
    if fuse and not model.spec.fused:
        model = model.fused()
    elif model is weights_or_model:
        model = copy.deepcopy(model)
    return model.to(device).to(memory_format=torch.channels_last).eval()


def image_size_of(model: Detector) -> int:
    """Long side of the network input that the model was trained with, 640 where unknown, fitted to its stride."""
    return trained_image_size(model.metadata.image_size if model.metadata is not None else None, model.max_stride)
