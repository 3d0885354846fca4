"""Datasets, collation and loaders for training and evaluation."""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from cloverleaf.data.cache import ImageCache, open_cache
from cloverleaf.data.collate import TargetOptions, collate
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.cpus import local_processes, usable_cpus
from cloverleaf.data.image_io import resized_hw
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.policy import FirstTime, TrainPolicy, load_sample, mosaic_allowed
from cloverleaf.data.sampler import EpochSampler, EvalBatchSampler, Key, TrainBatchSampler
from cloverleaf.data.transforms.geometry import GREY, letterbox_sample
from cloverleaf.errors import ImageError
from cloverleaf.structures import ByEpoch, Sample

logger = logging.getLogger(__name__)

_MAX_WORKERS = 16
_RECTANGLE_PAD = 0.5


class TrainDataset(Dataset[Sample]):
    """Augmented samples by (epoch, index) key.

    Args:
        policies: make them, of one dataset; the epoch says which.
        epochs: length of the run, which decides when the mosaic is switched off.
    """

    def __init__(self, policies: ByEpoch[TrainPolicy], epochs: int) -> None:
        self.policies, self.epochs = policies, epochs

    def __len__(self) -> int:
        return len(self.policies.values[0].index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, i = key
        policy = self.policies.at(epoch)
        return policy.build(epoch, i, mosaic_allowed=mosaic_allowed(epoch, self.epochs, policy.augment))


class PlainDataset(Dataset[Sample]):
    """Training images by (epoch, index) key without augmentation: letterboxed to the square training input, no more.

    Args:
        policy: reads them; only its image size counts.
    """

    def __init__(self, policy: TrainPolicy) -> None:
        self.policy = policy

    def __len__(self) -> int:
        return len(self.policy.index)

    def __getitem__(self, key: Key) -> Sample:
        return letterbox_sample(self.policy.load(key[1]), self.policy.image_size)


class EvalDataset(Dataset[Sample]):
    """Letterboxed samples by position; position p is row ``order[p]`` of the index.

    Rectangular: images are sorted by height / width, and every batch is padded to the shape that its own aspect ratios
    need, plus half a stride, as in the published evaluation of YOLOv7. An image that cannot be read is judged as a grey
    one (its objects count as missed), with a warning that names it.

    Args:
        index: the dataset.
        image_size: longer side of the images.
        rectangular: pad to the batch's shape instead of to a square.
        batch_size: images per batch over which a shape is shared.
        stride: the largest stride of the model; sides are multiples of it.
        cache: decoded images of that size, or None.
    """

    def __init__(
        self,
        index: DetectionIndex,
        image_size: int,
        rectangular: bool,
        batch_size: int,
        stride: int = 32,
        cache: ImageCache | None = None,
    ) -> None:
        self.index, self.image_size, self.batch_size, self.cache = index, image_size, batch_size, cache
        sizes = index.sizes_hw.astype(np.float64)
        aspect = sizes[:, 0] / sizes[:, 1]
        self.order = np.argsort(aspect, kind="stable") if rectangular else np.arange(len(index))
        self.batches = [
            list(range(start, min(start + batch_size, len(index)))) for start in range(0, len(index), batch_size)
        ]
        side = -(-image_size // stride) * stride
        self.shapes_hw = [
            rectangle_hw(aspect[self.order[batch]], image_size, stride) if rectangular else (side, side)
            for batch in self.batches
        ]
        self._first_time = FirstTime(len(index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> Sample:
        row = int(self.order[position])
        try:
            sample = load_sample(self.index, row, self.image_size, self.cache, augmenting=False)
        except ImageError as error:
            if self._first_time(row):
                logger.warning("%s; it is judged as an image without detections", error)
            sample = self._grey(row)
        return letterbox_sample(sample, self.shapes_hw[position // self.batch_size], scale_up=False)

    def _grey(self, row: int) -> Sample:
        height, width = self.index.size_hw(row)
        new_height, new_width = resized_hw((height, width), self.image_size)
        return Sample(
            image=np.full((new_height, new_width, 3), GREY, np.uint8),
            boxes_xyxy=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int64),
            image_id=self.index.image_id(row),
            original_hw=(height, width),
            letterbox=(new_width / width, new_height / height, 0.0, 0.0),
        )


def rectangle_hw(aspect: npt.NDArray[np.floating], image_size: int, stride: int) -> tuple[int, int]:
    """Input size of a batch from its aspect ratios (height / width), padded by half a stride and rounded up."""
    low, high = float(aspect.min()), float(aspect.max())
    shape = np.array([high, 1.0]) if high < 1 else np.array([1.0, 1 / low]) if low > 1 else np.ones(2)
    height, width = (np.ceil(shape * image_size / stride + _RECTANGLE_PAD) * stride).astype(int).tolist()
    return height, width


def build_train_loader(
    index: DetectionIndex,
    data: DataConfig,
    augment: AugmentConfig | ByEpoch[AugmentConfig],
    *,
    epochs: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    targets: TargetOptions | None = None,
) -> DataLoader[Any]:
    """The training loader of this process; its batches are `Batch`es of ``data.batch_size / world_size`` samples.

    ``augment`` holds for the whole run or changes with the epoch. ``targets`` says what the batches hold beside boxes
    and labels; masks come packed (`Targets.unpacked`).
    Call ``loader.batch_sampler.sampler.set_epoch(epoch)`` before each epoch, or ``.resume(epoch, start)``.
    """
    cache = open_cache(index, data.image_size, data.cache, area=False)
    options = targets or TargetOptions()
    first_time, by_epoch = FirstTime(len(index)), augment if isinstance(augment, ByEpoch) else ByEpoch.always(augment)
    policies = by_epoch.map(
        lambda of_phase: TrainPolicy(
            index, of_phase, data.image_size, seed, cache,
            semantic=options.semantic, covered=options.covered, first_time=first_time,
        )
    )  # fmt: skip
    dataset = TrainDataset(policies, epochs)
    sampler = EpochSampler(len(index), seed=seed, rank=rank, world_size=world_size)
    batches = TrainBatchSampler(sampler, max(1, data.batch_size // world_size))
    return make_loader(dataset, batches, data.workers, functools.partial(collate, options=options))


def build_sample_loader(
    index: DetectionIndex, data: DataConfig, augment: AugmentConfig | None, *, images: int, seed: int = 0
) -> DataLoader[Any]:
    """Square training input of ``images`` images (at most all), which ones and how augmented drawn from ``seed``.

    ``augment`` None leaves the images as they are, letterboxed. A mosaic that training stopped before its end is used.
    """
    policy = TrainPolicy(index, augment or AugmentConfig(), data.image_size, seed)
    dataset: Dataset[Sample] = PlainDataset(policy)
    if augment is not None:
        dataset = TrainDataset(ByEpoch.always(policy), epochs=augment.close_mosaic + 1)
    sampler = EpochSampler(len(index), seed=seed)
    sampler.resume(0, max(len(index) - images, 0))
    return make_loader(dataset, TrainBatchSampler(sampler, data.batch_size), data.workers, collate)


def build_eval_loader(
    index: DetectionIndex,
    data: DataConfig,
    *,
    stride: int = 32,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Any]:
    """The evaluation loader of this process; every image is seen once over all processes, ``image_ids`` say which."""
    cache = open_cache(index, data.image_size, data.cache, area=True)
    dataset = EvalDataset(index, data.image_size, data.rectangular_eval, batch_size or data.batch_size, stride, cache)
    batches = EvalBatchSampler(dataset.batches, rank=rank, world_size=world_size)
    return make_loader(dataset, batches, data.workers, collate)


def resolve_workers(workers: int) -> int:
    """Loader processes for this training process; -1 shares the usable CPUs among the processes of this machine."""
    if workers >= 0:
        return workers
    return max(1, min(_MAX_WORKERS, usable_cpus() // local_processes()))


def make_loader(dataset: Dataset[Any], batches: Any, workers: int, collate_fn: Any) -> DataLoader[Any]:
    """A loader whose processes share the usable CPUs, for batches of keys that ``dataset`` knows."""
    workers = min(resolve_workers(workers), len(batches))
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate_fn,
        worker_init_fn=_start_worker if workers else None,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        # A fork shares the caches and starts at once; the workers never touch the accelerator.
        multiprocessing_context="fork" if workers and sys.platform.startswith("linux") else None,
    )


def _start_worker(_: int) -> None:
    """One thread per worker, as the parallelism is in their number; and stderr as it was before any live display,
    whose lock another thread may have held at the moment of the fork."""
    sys.stderr = sys.__stderr__ or sys.stderr
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
