"""Which input sizes a model can be trained with."""

from __future__ import annotations

import torch

from cloverleaf.deploy.input_size import check_image_size
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import empty_detector
from cloverleaf.models.detector import Detector


def check_training_size(model: Detector, size: int, *, smallest_batch: int) -> None:
    """Refuse an image size that the model cannot take, or that leaves BatchNorm nothing to normalise over.

    Args:
        model: the detector.
        size: side of the square input in pixels.
        smallest_batch: images in the smallest batch that it will see.

    Raises:
        ConfigError: it is no multiple of the stride, or leaves a single value per channel.
    """
    check_image_size(size, model.max_stride, model.spec.name)
    if smallest_batch > 1:
        return
    try:  # a neck may have maps coarser than any stride; without storage the trial costs a moment
        empty_detector(model.spec).to("meta").train()(torch.empty(1, 3, size, size, device="meta"))
    except ValueError as error:
        raise ConfigError(
            f"image size {size} with one image a batch", "BatchNorm has a single value per channel to look at",
            "use larger images or a larger batch",
        ) from error  # fmt: skip
