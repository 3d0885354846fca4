"""Samples to a batch: flat targets, and masks or a class per pixel where a task wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from cloverleaf.data.transforms import polygons as outlines
from cloverleaf.data.transforms.objects import select
from cloverleaf.structures import Batch, Polygons, Sample, Targets

IGNORED = 255  # a pixel of `Targets.semantic` that does not count


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the targets of a batch hold beside boxes and labels.

    Attributes:
        masks: a mask of every object (`Targets.packed_masks`).
        semantic: a class for every pixel (`Targets.semantic`).
        boxes_as_masks: an object without outline fills its box; otherwise it is left out where masks are wanted.
        covered: which pixels are no padding (`Targets.covered`).
    """

    masks: bool = False
    semantic: bool = False
    boxes_as_masks: bool = False
    covered: bool = False


def collate(samples: Sequence[Sample], options: TargetOptions | None = None) -> Batch:
    """Stack samples of one size into a `Batch`; crowd objects are left out of the targets.

    Args:
        samples: at least one, all of one size.
        options: what the targets hold; None for boxes and labels.
    """
    options = options or TargetOptions()
    semantic = torch.from_numpy(np.stack([label_pixels(s, options) for s in samples])) if options.semantic else None
    covered = torch.from_numpy(np.stack([_covered(s) for s in samples]) == 0) if options.covered else None
    samples = [_learnable(sample, options) for sample in samples]
    images = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)
    identities = tags = masks = None
    if any(sample.identities is not None for sample in samples):
        identities = torch.from_numpy(np.concatenate([_identities(sample) for sample in samples]))
    known_tags = [sample.tags for sample in samples if sample.tags is not None]
    if known_tags:
        tags = torch.from_numpy(
            np.stack([np.zeros_like(known_tags[0]) if sample.tags is None else sample.tags for sample in samples])
        )
    if options.masks:
        masks = torch.from_numpy(np.concatenate([_packed(sample) for sample in samples]))
    counts = torch.tensor([len(sample) for sample in samples])
    targets = Targets(
        boxes_xyxy=torch.from_numpy(np.concatenate([s.boxes_xyxy for s in samples]).astype(np.float32)),
        labels=torch.from_numpy(np.concatenate([s.labels for s in samples]).astype(np.int64)),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), counts),
        num_images=len(samples),
        identities=identities,
        tags=tags,
        semantic=semantic,
        packed_masks=masks,
        covered=covered,
    )
    return Batch(
        images=images,
        targets=targets,
        image_ids=torch.tensor([sample.image_id for sample in samples]),
        original_hw=torch.tensor([sample.original_hw for sample in samples]),
        letterbox=torch.tensor([sample.letterbox or (1.0, 1.0, 0.0, 0.0) for sample in samples], dtype=torch.float32),
    )


def label_pixels(sample: Sample, options: TargetOptions) -> npt.NDArray[np.int64]:
    """``(H, W)`` int64: 0 for background, label + 1 on objects, the smaller ones on top; 255 on crowds and padding."""
    canvas = _covered(sample)
    rings = _rings(sample, options)
    crowd = np.zeros(len(sample), bool) if sample.crowd is None else sample.crowd
    for i in np.argsort(np.where(crowd, -np.inf, -outlines.areas(rings)), kind="stable").tolist():
        outlines.fill_into(canvas, rings[i], IGNORED if crowd[i] else int(sample.labels[i]) + 1)
    return canvas.astype(np.int64)


def _covered(sample: Sample) -> npt.NDArray[np.uint8]:
    """``(H, W)`` uint8: 0 on what comes from stored images, 255 on padding."""
    canvas = np.full(sample.size_hw, IGNORED, np.uint8)
    height, width = sample.size_hw
    outlines.fill_into(canvas, sample.covered or (_corners(np.array([0, 0, width, height])),), 0)
    return canvas


def _learnable(sample: Sample, options: TargetOptions) -> Sample:
    """Without crowds, and where masks are wanted without objects that have none."""
    keep = np.ones(len(sample), bool) if sample.crowd is None else ~sample.crowd
    if options.masks:
        rings = _rings(sample, options)
        keep &= np.array([bool(parts) for parts in rings], bool)
        sample = replace(sample, polygons=rings)
    return sample if keep.all() else select(sample, keep)


def _rings(sample: Sample, options: TargetOptions) -> tuple[Polygons, ...]:
    """Outlines of all objects, of the box where an object has none and that is asked for."""
    known = sample.polygons if sample.polygons is not None else ((),) * len(sample)
    if not options.boxes_as_masks:
        return known
    return tuple(rings or (_corners(box),) for rings, box in zip(known, sample.boxes_xyxy, strict=True))


def _corners(box_xyxy: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
    return box_xyxy[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2).astype(np.float32)


def _packed(sample: Sample) -> npt.NDArray[np.uint8]:
    """``(n, H, W / 8)``: masks of all objects, packed one by one so that no more than one is in memory unpacked."""
    height, width = sample.size_hw
    packed = np.zeros((len(sample), height, -(-width // 8)), np.uint8)
    for i, rings in enumerate(sample.polygons or ()):
        packed[i] = np.packbits(outlines.fill_mask(rings, (height, width)), axis=1)
    return packed


def _identities(sample: Sample) -> npt.NDArray[np.int64]:
    return np.full(len(sample), -1, np.int64) if sample.identities is None else sample.identities
