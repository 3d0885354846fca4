"""Which input sizes a model can be trained with."""

from __future__ import annotations

from cloverleaf.deploy.input_size import check_image_size
from cloverleaf.errors import ConfigError
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
    stride = model.max_stride
    check_image_size(size, stride, model.spec.name)
    if size == stride and smallest_batch == 1:
        raise ConfigError(
            f"image size {size} with one image a batch", "BatchNorm has a single value per channel to look at",
            "use larger images or a larger batch",
        )  # fmt: skip
