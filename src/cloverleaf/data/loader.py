"""Datasets, collation and loaders for training and evaluation."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from cloverleaf.data.cache import ImageCache, open_cache
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.cpus import local_processes, usable_cpus
from cloverleaf.data.image_io import resized_hw
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.policy import FirstTime, TrainPolicy, load_sample, mosaic_allowed
from cloverleaf.data.sampler import EpochSampler, EvalBatchSampler, Key, TrainBatchSampler
from cloverleaf.data.transforms.geometry import GREY, letterbox_sample
from cloverleaf.data.transforms.polygons import fill_mask
from cloverleaf.errors import ImageError
from cloverleaf.structures import Batch, Sample, Targets

logger = logging.getLogger(__name__)

_MAX_WORKERS = 16
_RECTANGLE_PAD = 0.5


class TrainDataset(Dataset[Sample]):
    """Augmented samples by (epoch, index) key.

    Args:
        policy: makes them.
        epochs: length of the run, which decides when the mosaic is switched off.
    """

    def __init__(self, policy: TrainPolicy, epochs: int) -> None:
        self.policy, self.epochs = policy, epochs

    def __len__(self) -> int:
        return len(self.policy.index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, i = key
        return self.policy.build(epoch, i, mosaic_allowed=mosaic_allowed(epoch, self.epochs, self.policy.augment))


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


def collate(samples: Sequence[Sample], *, with_masks: bool = False) -> Batch:
    """Stack samples of one size into a `Batch`; crowd objects are left out of the targets.

    Args:
        samples: at least one, all of one size.
        with_masks: also fill the outlines to ``(M, H, W)`` masks (an object without outline gets its box).
    """
    kept = [~s.crowd if s.crowd is not None else np.ones(len(s), bool) for s in samples]
    counts = [int(keep.sum()) for keep in kept]
    pairs = list(zip(samples, kept, strict=True))
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    boxes = np.concatenate([sample.boxes_xyxy[keep] for sample, keep in pairs]).astype(np.float32)
    labels = np.concatenate([sample.labels[keep] for sample, keep in pairs]).astype(np.int64)
    identities = tags = masks = None
    if any(sample.identities is not None for sample in samples):
        identities = torch.from_numpy(np.concatenate([_identities(sample)[keep] for sample, keep in pairs]))
    known_tags = [sample.tags for sample in samples if sample.tags is not None]
    if known_tags:
        tags = torch.from_numpy(
            np.stack([np.zeros_like(known_tags[0]) if sample.tags is None else sample.tags for sample in samples])
        )
    if with_masks:
        drawn = [_mask(sample, i) for sample, keep in pairs for i in np.flatnonzero(keep).tolist()]
        masks = torch.from_numpy(np.stack(drawn) if drawn else np.zeros((0, *samples[0].size_hw), np.uint8))
    targets = Targets(
        boxes_xyxy=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
        num_images=len(samples),
        masks=masks,
        identities=identities,
        tags=tags,
    )
    return Batch(
        images=images,
        targets=targets,
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        original_hw=torch.tensor([sample.original_hw for sample in samples]),
        letterbox=torch.tensor([sample.letterbox or (1.0, 1.0, 0.0, 0.0) for sample in samples], dtype=torch.float32),
    )


def _identities(sample: Sample) -> npt.NDArray[np.int64]:
    return np.full(len(sample), -1, np.int64) if sample.identities is None else sample.identities


def _mask(sample: Sample, i: int) -> npt.NDArray[np.uint8]:
    rings = sample.polygons[i] if sample.polygons is not None else ()
    if not rings:
        x1, y1, x2, y2 = sample.boxes_xyxy[i].tolist()
        rings = (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32),)
    return fill_mask(rings, sample.size_hw)


def build_train_loader(
    index: DetectionIndex,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    epochs: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    with_masks: bool = False,
) -> DataLoader[Any]:
    """The training loader of this process; its batches are `Batch`es of ``data.batch_size / world_size`` samples.

    Call ``loader.batch_sampler.sampler.set_epoch(epoch)`` before each epoch, or ``.resume(epoch, start)``.
    """
    cache = open_cache(index, data.image_size, data.cache, area=False)
    dataset = TrainDataset(TrainPolicy(index, augment, data.image_size, seed, cache), epochs)
    sampler = EpochSampler(len(index), seed=seed, rank=rank, world_size=world_size)
    batches = TrainBatchSampler(sampler, max(1, data.batch_size // world_size))
    return _loader(dataset, batches, data.workers, functools.partial(collate, with_masks=with_masks))


def build_sample_loader(
    index: DetectionIndex, data: DataConfig, augment: AugmentConfig | None, *, images: int, seed: int = 0
) -> DataLoader[Any]:
    """Square training input of ``images`` images (at most all), which ones and how augmented drawn from ``seed``.

    ``augment`` None leaves the images as they are, letterboxed. A mosaic that training stopped before its end is used.
    """
    policy = TrainPolicy(index, augment or AugmentConfig(), data.image_size, seed)
    dataset = PlainDataset(policy) if augment is None else TrainDataset(policy, epochs=augment.close_mosaic + 1)
    sampler = EpochSampler(len(index), seed=seed)
    sampler.resume(0, max(len(index) - images, 0))
    return _loader(dataset, TrainBatchSampler(sampler, data.batch_size), data.workers, collate)


def build_eval_loader(
    index: DetectionIndex,
    data: DataConfig,
    *,
    stride: int = 32,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    with_masks: bool = False,
) -> DataLoader[Any]:
    """The evaluation loader of this process; every image is seen once over all processes, ``image_ids`` say which."""
    cache = open_cache(index, data.image_size, data.cache, area=True)
    dataset = EvalDataset(index, data.image_size, data.rectangular_eval, batch_size or data.batch_size, stride, cache)
    batches = EvalBatchSampler(dataset.batches, rank=rank, world_size=world_size)
    return _loader(dataset, batches, data.workers, functools.partial(collate, with_masks=with_masks))


def resolve_workers(workers: int) -> int:
    """Loader processes for this training process; -1 shares the usable CPUs among the processes of this machine."""
    if workers >= 0:
        return workers
    return max(1, min(_MAX_WORKERS, usable_cpus() // local_processes()))


def _loader(dataset: Dataset[Sample], batches: Any, workers: int, collate_fn: Any) -> DataLoader[Any]:
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
