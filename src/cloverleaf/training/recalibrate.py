"""Recomputing BatchNorm statistics: those of averaged weights are not the average of the statistics.

The statistics belong to the activations that the weights before them produce, so new weights need new ones (Izmailov et
al., arXiv 1803.05407, section 3.2). They are taken over images augmented as in training: what follows a BatchNorm has
learned from inputs normalised by such statistics, and with those of plain images it finds less (docs/averaging.md).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.data.class_loader import build_class_sample_loader
from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import build_sample_loader
from cloverleaf.errors import DataError
from cloverleaf.models.detector import Detector
from cloverleaf.structures import Batch
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.input_size import check_training_size
from cloverleaf.training.phases import resolve_phases


def statistics_of(model: nn.Module) -> list[_BatchNorm]:
    """The modules of ``model`` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def augmentation_of(config: TrainConfig) -> AugmentConfig | ClassifyConfig:
    """What a run did to its images in its last phase, before it closed the mosaic, if it ever opened it.

    Whole images are not mixed.
    """
    if config.task == "classify":
        return config.classify
    augment = resolve_phases(config).values[-1].augment
    never = augment.close_mosaic >= config.epochs
    return replace(augment, mosaic=0.0) if never else augment


@torch.no_grad()
def recompute_statistics(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Replace all running statistics by the mean over ``batches``, each weighted by its number of images.

    Of every batch a layer adds its own mean and its unbiased variance, as in training, while layers before it
    normalise by that batch. Everything but BatchNorm stays in evaluation mode; weights do not change. Layers that the
    model does not come to without targets, the box heads of Cascade Mask R-CNN, keep what they have.

    Args:
        model: in any mode and on any device; left in evaluation mode.
        batches: uint8 images ``(B, 3, H, W)``; the order decides rounding only.

    Returns:
        How many images were seen; 0, and nothing read, where the model keeps no statistics.

    Raises:
        DataError: there are no batches.
    """
    norms = statistics_of(model.eval())
    if not norms:
        return 0
    device = next(model.parameters()).device
    momenta = [norm.momentum for norm in norms]
    before = [copy.deepcopy(norm.state_dict()) for norm in norms]
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for batch in batches:
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # a cumulative average: the first batch replaces what was there
            model(batch.images.to(device).float().div_(255))
    finally:
        for norm, momentum, state in zip(norms, momenta, before, strict=True):
            norm.momentum = momentum
            if not norm.num_batches_tracked:
                norm.load_state_dict(state)
            norm.eval()
    if not seen:
        raise DataError("no statistics can be computed", "there are no images", "give a split that has some")
    return seen


def recalibrate(
    model: Detector,
    index: DetectionIndex,
    data: DataConfig,
    *,
    augment: AugmentConfig | ClassifyConfig | None,
    images: int = 512,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> int:
    """Recompute the statistics of ``model`` over up to ``images`` images of ``index``, drawn from ``seed``.

    Args:
        model: changed in place; it ends on ``device`` in evaluation mode, in float32.
        index: usually the training split; only its images are looked at.
        data: image size, batch size (best as in training) and workers.
        augment: that of the training, mosaic included even if it stopped before the end; None for letterboxed images.
        images: a few hundred are enough, as every image gives a value per cell.

    Returns:
        How many images were seen; 0 where the model has no BatchNorm.

    Raises:
        ConfigError: the image size does not fit the model, or leaves a single value per channel.
        DataError: no image can be read.
    """
    check_training_size(model, data.image_size, smallest_batch=min(data.batch_size, images, len(index)))
    model.float().to(device)
    if isinstance(augment, ClassifyConfig):
        batches = build_class_sample_loader(index, data, augment, images=images, seed=seed)
    else:
        batches = build_sample_loader(index, data, augment, images=images, seed=seed)
    return recompute_statistics(model, batches)
