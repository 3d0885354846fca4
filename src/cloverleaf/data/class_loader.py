"""Loaders of whole images and their classes, seeded and resumable as those of detection are."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.collate import collate
from cloverleaf.data.config import DataConfig
from cloverleaf.data.image_io import read_image
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import make_loader
from cloverleaf.data.policy import PURPOSE_AUGMENT, FirstTime, next_readable
from cloverleaf.data.sampler import EpochSampler, EvalBatchSampler, Key, TrainBatchSampler
from cloverleaf.data.seeded import seeded
from cloverleaf.data.transforms.geometry import GREY
from cloverleaf.data.transforms.whole_images import EvalTransform, TrainTransform
from cloverleaf.errors import ImageError
from cloverleaf.structures import Sample

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]


class ClassTrainDataset(Dataset[Sample]):
    """Augmented images by (epoch, index) key; the same for the same (seed, epoch, index).

    An image that cannot be read is replaced by the next one that can, with its class and one warning per file.

    Args:
        index: of class folders.
        config: the augmentation; None judges the images as they are.
        image_size: side of the result.
        seed: of the run.
    """

    def __init__(self, index: DetectionIndex, config: ClassifyConfig | None, image_size: int, seed: int) -> None:
        self.index, self.image_size, self.seed = index, image_size, seed
        self.transform = EvalTransform(image_size) if config is None else TrainTransform(config, image_size)
        self._first_time = FirstTime(len(index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, i = key
        row, image = next_readable(
            self.index, i, lambda row: (row, read_image(self.index.image_path(row))), self._first_time
        )
        with seeded(self.seed, epoch, i, PURPOSE_AUGMENT):
            pixels = self.transform(image)
        return _sample(self.index, row, pixels)


class ClassEvalDataset(Dataset[Sample]):
    """Images in the order of the index, as a classifier is judged.

    One that cannot be read is judged as a grey one, with a warning that names it.
    """

    def __init__(self, index: DetectionIndex, image_size: int) -> None:
        self.index, self.transform = index, EvalTransform(image_size)
        self._first_time = FirstTime(len(index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Sample:
        try:
            image = read_image(self.index.image_path(row))
        except ImageError as error:
            if self._first_time(row):
                logger.warning("%s; it is judged as a grey image", error)
            image = np.full((*self.index.size_hw(row), 3), GREY, np.uint8)
        return _sample(self.index, row, self.transform(image))


def build_class_train_loader(
    index: DetectionIndex,
    data: DataConfig,
    config: ClassifyConfig,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Any]:
    """The training loader of this process; its batches are `Batch`es of ``data.batch_size / world_size`` images.

    Call ``loader.batch_sampler.sampler.set_epoch(epoch)`` before each epoch, or ``.resume(epoch, start)``.
    """
    dataset = ClassTrainDataset(index, config, data.image_size, seed)
    sampler = EpochSampler(len(index), seed=seed, rank=rank, world_size=world_size)
    batches = TrainBatchSampler(sampler, max(1, data.batch_size // world_size))
    return make_loader(dataset, batches, data.workers, collate)


def build_class_sample_loader(
    index: DetectionIndex, data: DataConfig, config: ClassifyConfig | None, *, images: int, seed: int = 0
) -> DataLoader[Any]:
    """``images`` training images (at most all), which ones and how augmented drawn from ``seed``."""
    dataset = ClassTrainDataset(index, config, data.image_size, seed)
    sampler = EpochSampler(len(index), seed=seed)
    sampler.resume(0, max(len(index) - images, 0))
    return make_loader(dataset, TrainBatchSampler(sampler, data.batch_size), data.workers, collate)


def build_class_eval_loader(
    index: DetectionIndex, data: DataConfig, *, stride: int = 32, batch_size: int | None = None
) -> DataLoader[Any]:
    """The evaluation loader: every image once, in the order of the index; ``stride`` decides nothing here."""
    size = batch_size or data.batch_size
    batches = [list(range(start, min(start + size, len(index)))) for start in range(0, len(index), size)]
    return make_loader(ClassEvalDataset(index, data.image_size), EvalBatchSampler(batches), data.workers, collate)


def _sample(index: DetectionIndex, row: int, pixels: Pixels) -> Sample:
    """The image with its class, as one object that covers it."""
    height, width = pixels.shape[:2]
    return Sample(
        image=pixels,
        boxes_xyxy=np.array([[0, 0, width, height]], np.float32),
        labels=index.labels[index.object_offsets[row] : index.object_offsets[row + 1]].astype(np.int64),
        image_id=index.image_id(row),
        original_hw=index.size_hw(row),
        letterbox=None,
    )
