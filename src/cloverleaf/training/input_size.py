"""Which input sizes a model can be trained with."""

from __future__ import annotations

import torch

from cloverleaf.deploy.input_size import check_image_size
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import empty_detector
from cloverleaf.models.detector import Detector


def multi_scale_size(size: int, stride: int, share: float) -> int:
    """The input size of a batch in multi-scale training, a multiple of 32 and of ``stride``.

    Args:
        size: the image size of the run.
        stride: coarsest of the model.
        share: in [0, 1), evenly distributed: 0 gives the smallest size, 0.5 ``size``, and 1 would give 1.5 times that.
    """
    step = max(32, stride)
    low, high = int(size * 0.5), int(size * 1.5) + step
    return max((low + int(share * (high - low))) // step, 1) * step


def check_training_size(
    model: Detector, size: int, *, smallest_batch: int, multi_scale: bool = False, teacher: Detector | None = None
) -> None:
    """Refuse an image size that the model cannot take, or that leaves BatchNorm nothing to normalise over.

    Args:
        model: the detector.
        size: side of the square input in pixels.
        smallest_batch: images in the smallest batch that it will see.
        multi_scale: smaller sizes will be drawn as well.
        teacher: another detector that sees the same images, in training mode.

    Raises:
        ConfigError: it is no multiple of the stride, or leaves a single value per channel.
    """
    check_image_size(size, model.max_stride, model.spec.name)
    if smallest_batch > 1:
        return
    smallest = multi_scale_size(size, model.max_stride, 0) if multi_scale else size
    for detector in (model, *([teacher] if teacher is not None else [])):
        try:  # a neck may have maps coarser than any stride; without storage the trial costs a moment
            with torch.no_grad():  # reversible layers ask for the state of autocast otherwise, which "meta" has not
                empty_detector(detector.spec).to("meta").train()(torch.empty(1, 3, smallest, smallest, device="meta"))
        except ValueError as error:
            drawn = f" (multi_scale draws it for {size})" if smallest != size else ""
            raise ConfigError(
                f"image size {smallest}{drawn} with one image a batch",
                f"BatchNorm of {detector.spec.name} has a single value per channel to look at",
                "use larger images or a larger batch",
            ) from error
