"""Which transforms apply to a training sample, in which order, from which random numbers.

Order of the published YOLOv7 code (arXiv 2207.02696): mosaic (with copy-paste, perspective and mixup) or letterbox with
perspective; hue, saturation, value; paste-in; flips. Every draw comes from (seed, epoch, index), so a sample does not
depend on the number of workers, on the order in which samples are made, or on a restart.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cloverleaf.data.cache import ImageCache
from cloverleaf.data.config import AugmentConfig
from cloverleaf.data.image_io import read_resized, resized_hw
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.transforms.colour import draw_hsv, jitter_hsv
from cloverleaf.data.transforms.geometry import PerspectiveDraw, draw_perspective, flip, letterbox_sample, move, warp
from cloverleaf.data.transforms.mixing import (
    draw_mosaic4_centre,
    draw_mosaic9_offset,
    mixup,
    mosaic4,
    mosaic9,
)
from cloverleaf.data.transforms.objects import select
from cloverleaf.data.transforms.paste import Donor, copy_paste, cut_donors, draw_copy_paste, draw_paste_slots, paste_in
from cloverleaf.errors import DataError, ImageError
from cloverleaf.structures import Sample

logger = logging.getLogger(__name__)

_MIXUP_BETA = 8.0
_WANTED_DONORS = 30
_DONOR_IMAGES = 8

# Purposes of random streams; part of what makes a run repeatable, so never renumber them.
PURPOSE_AUGMENT = 0
PURPOSE_SHUFFLE = 1
PURPOSE_MIX = 2

Read = TypeVar("Read")


def generator(seed: int, epoch: int, index: int, purpose: int) -> np.random.Generator:
    """The random numbers of one sample (or, for shuffling, of one epoch)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index, purpose))))


def mosaic_allowed(epoch: int, epochs: int, augment: AugmentConfig) -> bool:
    """Whether mosaic and mixup are still on in this epoch (counted from 0)."""
    return epoch < epochs - augment.close_mosaic


def load_sample(
    index: DetectionIndex,
    i: int,
    image_size: int,
    cache: ImageCache | None = None,
    *,
    augmenting: bool,
    semantic: bool = False,
    covered: bool = False,
) -> Sample:
    """Read image ``i``, its longer side scaled to ``image_size``, with its objects in pixels of the scaled image.

    Args:
        index: the dataset.
        i: row of the index.
        image_size: longer side of the result.
        cache: of the same size, or None.
        augmenting: bilinear instead of area averaging when shrinking; crowd objects are left out.
        semantic: keep the crowd objects, and say what the image covers.
        covered: say what the image covers.

    Raises:
        ImageError: the file cannot be read.
    """
    cached = cache.get(i) if cache is not None else None
    if cached is not None:
        image, original_hw = cached, index.size_hw(i)
    else:
        image, original_hw = read_resized(index.image_path(i), image_size, area=not augmenting)
        if resized_hw(index.size_hw(i), image_size) == image.shape[:2]:
            original_hw = index.size_hw(i)  # in whose pixels the boxes are, even if the file was scaled since
    objects = index.objects(i)
    height, width = original_hw
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    sample = Sample(
        image=image,
        boxes_xyxy=objects.boxes_xyxy.clip(0, [width, height, width, height]).astype(np.float32).reshape(-1, 4),
        labels=objects.labels,
        polygons=objects.polygons,
        identities=objects.identities,
        crowd=objects.crowd,
        tags=index.tags(i),
        image_id=index.image_id(i),
        original_hw=original_hw,
        covered=(corners,) if semantic or covered else None,
    )
    sides = sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2]
    keep = np.all(sides > 0, axis=1) & ~(objects.crowd & (augmenting and not semantic))
    if not keep.all():
        sample = select(sample, keep)
    return move(sample, (image.shape[1] / width, image.shape[0] / height, 0.0, 0.0))


class FirstTime:
    """One flag per image, shared by forked workers: true the first time only."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._flags = mmap.mmap(-1, max(1, size))

    def __call__(self, i: int) -> bool:
        seen, self._flags[i] = self._flags[i], 1
        return not seen

    def __reduce__(self) -> tuple[type[FirstTime], tuple[int]]:
        return type(self), (self._size,)


def next_readable(index: DetectionIndex, i: int, read: Callable[[int], Read], first_time: FirstTime) -> Read:
    """What ``read`` makes of row ``i`` or, if its image cannot be read, of the next row whose image can.

    Args:
        index: the dataset.
        i: row of the index.
        read: raises `ImageError` where the image cannot be read.
        first_time: of which files a warning was given.

    Raises:
        DataError: no image of the dataset can be read.
    """
    for step in range(len(index)):
        row = (i + step) % len(index)
        try:
            return read(row)
        except ImageError as error:
            if first_time(row):
                logger.warning("%s; the next image takes its place in training", error)
    raise DataError(f"no image of {index.source} can be read", "all were tried", "run `cloverleaf data check`")


class TrainPolicy:
    """Makes the training sample of (epoch, index).

    Args:
        index: the dataset.
        augment: probabilities and ranges.
        image_size: side of the square result, and longer side of the images before augmentation.
        seed: of the run.
        cache: decoded images of that size, or None.
        semantic: samples keep their crowd objects and know what is padding.
        covered: samples know what is padding.
        first_time: of which files a warning was given; shared by the policies of one run.
    """

    def __init__(
        self,
        index: DetectionIndex,
        augment: AugmentConfig,
        image_size: int,
        seed: int,
        cache: ImageCache | None = None,
        *,
        semantic: bool = False,
        covered: bool = False,
        first_time: FirstTime | None = None,
    ) -> None:
        self.semantic, self.covered = semantic, covered
        self.index, self.augment, self.image_size, self.seed, self.cache = index, augment, image_size, seed, cache
        self._first_time = first_time or FirstTime(len(index))

    def build(self, epoch: int, i: int, *, mosaic_allowed: bool = True) -> Sample:
        """The ``image_size`` x ``image_size`` sample; the same for the same (seed, epoch, i).

        An image that cannot be read is replaced by the next one that can, with one warning per file.

        Raises:
            DataError: no image of the dataset can be read.
        """
        augment, size = self.augment, self.image_size
        rng = generator(self.seed, epoch, i, PURPOSE_AUGMENT)
        if mosaic_allowed and rng.random() < augment.mosaic:
            sample = self._mosaic(rng, i)
            if rng.random() < augment.mixup:
                second = self._mosaic(rng, int(rng.integers(len(self.index))))
                sample = mixup(sample, second, float(rng.beta(_MIXUP_BETA, _MIXUP_BETA)))
        else:
            sample = warp(letterbox_sample(self.load(i), size), self._draw_perspective(rng), (size, size))
        if augment.hsv_h or augment.hsv_s or augment.hsv_v:
            sample = jitter_hsv(sample, draw_hsv(rng, (augment.hsv_h, augment.hsv_s, augment.hsv_v)))
        if rng.random() < augment.paste_in and self.index.has_polygons:
            donors = self._draw_donors(rng)
            sample = paste_in(sample, donors, draw_paste_slots(rng, sample.size_hw))
        vertical, horizontal = rng.random() < augment.flipud, rng.random() < augment.fliplr
        return flip(sample, horizontal=bool(horizontal), vertical=bool(vertical))

    def load(self, i: int) -> Sample:
        """Image ``i`` or, if it cannot be read, the next one that can."""
        return next_readable(self.index, i, self._read, self._first_time)

    def _read(self, row: int) -> Sample:
        return load_sample(
            self.index, row, self.image_size, self.cache, augmenting=True, semantic=self.semantic, covered=self.covered
        )

    def _mosaic(self, rng: np.random.Generator, i: int) -> Sample:
        size, nine = self.image_size, bool(rng.random() < self.augment.mosaic9)
        y, x = draw_mosaic9_offset(rng, size) if nine else draw_mosaic4_centre(rng, size)
        others = rng.integers(len(self.index), size=8 if nine else 3).tolist()
        tiles = [self.load(row) for row in (i, *others)]
        sample = (mosaic9 if nine else mosaic4)(tiles, (y, x), size)
        if self.augment.copy_paste and sample.polygons is not None:
            sample = copy_paste(sample, draw_copy_paste(rng, sample, self.augment.copy_paste))
        return warp(sample, self._draw_perspective(rng), (size, size))

    def _draw_perspective(self, rng: np.random.Generator) -> PerspectiveDraw:
        a = self.augment
        return draw_perspective(
            rng, degrees=a.degrees, translate=a.translate, scale=a.scale, shear=a.shear, perspective=a.perspective,
            extra_zoom=a.extra_zoom,
        )  # fmt: skip

    def _draw_donors(self, rng: np.random.Generator) -> list[Donor]:
        """Half of the outlined objects of random images, until there are enough; none if the first image has none."""
        donors: list[Donor] = []
        for _ in range(_DONOR_IMAGES):
            source = self.load(int(rng.integers(len(self.index))))
            outlined = np.array([k for k, rings in enumerate(source.polygons or ()) if rings], np.intp)
            if len(outlined):
                half = rng.choice(outlined, size=max(1, len(outlined) // 2), replace=False)
                donors += cut_donors(source, half)
            if not donors or len(donors) >= _WANTED_DONORS:
                break
        return donors
