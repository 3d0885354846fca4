"""Crops of images with cells to hide: every draw comes from (seed, epoch, image)."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cloverleaf.data.image_io import image_size, read_image, read_resized
from cloverleaf.data.loader import make_loader
from cloverleaf.data.policy import PURPOSE_AUGMENT, FirstTime, generator
from cloverleaf.data.sampler import EpochSampler, Key, TrainBatchSampler
from cloverleaf.errors import DataError, ImageError
from cloverleaf.pretraining.config import ImagesConfig
from cloverleaf.pretraining.geometry import Cells

logger = logging.getLogger(__name__)

PURPOSE_MASK = 0x3A5C  # of the random streams; never renumber
_LOG_ASPECT = math.log(4 / 3)
_TRIES = 10
_FINER = 2  # images are decoded at no less than so many times the input's side
Item = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """Images and what is visible of them.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        visible: (B, 1, f, f) bool.
    """

    images: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device, non_blocking: bool = False) -> MaskedBatch:
        """The same on another device."""
        return MaskedBatch(self.images.to(device, non_blocking=non_blocking), self.visible.to(device))

    def pin_memory(self) -> MaskedBatch:
        """The same in page-locked memory."""
        return MaskedBatch(self.images.pin_memory(), self.visible.pin_memory())


class MaskedImages(Dataset[Item]):
    """Random resized crops with random visible cells, by (epoch, index) key.

    An image that turns out unreadable is replaced by the next one; one warning names it.

    Args:
        paths: the images.
        config: crops and flips.
        cells: how many are visible.
        seed: of the run.
    """

    def __init__(self, paths: Sequence[Path], config: ImagesConfig, cells: Cells, seed: int) -> None:
        self.paths, self.config, self.cells, self.seed = list(paths), config, cells, seed
        self._first_time = FirstTime(len(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> Item:
        epoch, i = key
        pixels = random_crop(self._read(i), self.config, generator(self.seed, epoch, i, PURPOSE_AUGMENT))
        return pixels, draw_visible(self.cells, generator(self.seed, epoch, i, PURPOSE_MASK))

    def _read(self, i: int) -> Tensor:
        for step in range(len(self.paths)):
            at = (i + step) % len(self.paths)
            try:
                return read_for_size(self.paths[at], self.config.image_size)
            except ImageError as error:
                if self._first_time(at):
                    logger.warning("%s; another image takes its place", error)
        raise DataError("no image can be read any more", "every one fails", "check that the images are still there")


def read_for_size(path: Path, size: int) -> Tensor:
    """(3, H, W) uint8; an image much larger than ``size`` is decoded at reduced scale."""
    height, width = image_size(path)
    least = _FINER * size
    if min(height, width) > 2 * least:
        pixels = read_resized(path, math.ceil(least * max(height, width) / min(height, width)))[0]
    else:
        pixels = read_image(path)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def random_crop(pixels: Tensor, config: ImagesConfig, rng: np.random.Generator) -> Tensor:
    """(3, H, W) uint8 -> (3, S, S): a box of random area and aspect, resized (bicubic), sometimes mirrored.

    Area in [scale, 1] of the image, aspect in [3/4, 4/3]; a central box where none fits (torchvision's rule).
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    height, width = pixels.shape[1:]
    top, left, tall, wide = _box(height, width, config.scale, rng)
    mirrored = rng.random() < config.fliplr
    size = [config.image_size, config.image_size]
    crop = F.resized_crop(pixels, top, left, tall, wide, size, InterpolationMode.BICUBIC, antialias=True)
    return crop.flip(2) if mirrored else crop


def central_crop(pixels: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 -> (3, size, size): the largest central square, resized."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return F.resized_crop(pixels, top, left, side, side, [size, size], InterpolationMode.BICUBIC, antialias=True)


def _box(height: int, width: int, scale: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(scale, 1.0)
        aspect = math.exp(rng.uniform(-_LOG_ASPECT, _LOG_ASPECT))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    wide = min(width, max(round(height * 4 / 3), 1))
    tall = min(height, max(round(width * 4 / 3), 1))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def draw_visible(cells: Cells, rng: np.random.Generator) -> Tensor:
    """(1, f, f) bool with exactly `cells.visible` cells True."""
    visible = torch.zeros(cells.side * cells.side, dtype=torch.bool)
    visible[torch.from_numpy(rng.permutation(cells.side * cells.side)[: cells.visible])] = True
    return visible.view(1, cells.side, cells.side)


def collate(items: Sequence[Item]) -> MaskedBatch:
    """Stack."""
    images, visible = zip(*items, strict=True)
    return MaskedBatch(torch.stack(images), torch.stack(visible))


def build_loader(
    paths: Sequence[Path], config: ImagesConfig, cells: Cells, *, seed: int, rank: int = 0, world_size: int = 1
) -> DataLoader[Any]:
    """The loader of this process; order, crops and masks do not depend on workers or on how many processes share."""
    dataset = MaskedImages(paths, config, cells, seed)
    sampler = EpochSampler(len(paths), seed=seed, rank=rank, world_size=world_size)
    batches = TrainBatchSampler(sampler, max(1, config.batch_size // world_size))
    return make_loader(dataset, batches, config.workers, functools.partial(collate))


def to_input(images: Tensor, normalize: str) -> Tensor:
    """uint8 (B, 3, H, W) -> what the network sees, float32."""
    from cloverleaf.pretraining.model import IMAGENET_MEAN, IMAGENET_STD

    values = images.float().div_(255)
    if normalize == "none":
        return values
    mean, deviation = (values.new_tensor(c)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
    return (values - mean) / deviation


def to_picture(values: Tensor, normalize: str) -> Tensor:
    """The reverse of `to_input`: (B, 3, H, W) -> uint8, clipped."""
    from cloverleaf.pretraining.model import IMAGENET_MEAN, IMAGENET_STD

    if normalize != "none":
        mean, deviation = (values.new_tensor(c)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
        values = values * deviation + mean
    return values.clamp(0, 1).mul(255).round().byte()
