"""Objects cut out along their outlines and pasted: mirrored onto their own image, or taken from other images.

Semantics of the published YOLOv7 code, with one repair: there the stored mask and the stored crop are the same memory,
so black pixels of an object turn white; here crop and mask are two arrays (docs/fidelity.md,
entry 37).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.transforms import polygons as outlines
from cloverleaf.data.transforms.objects import join, select
from cloverleaf.structures import Polygons, Sample

_MAX_COVER = 0.30
_SLOT_FRACTIONS = (0.75,) * 2 + (0.5,) * 4 + (0.25,) * 4 + (0.125,) * 4 + (0.0625,) * 6
_SKIP_SLOT = 0.2
_MIN_SLOT_SIDE = 20
_MIN_DONOR_SIDE = 10
_MIN_MASK_PIXELS = 20


def draw_copy_paste(rng: np.random.Generator, sample: Sample, share: float) -> npt.NDArray[np.intp]:
    """Indices of round(share x n) of the n outlined objects, without replacement."""
    outlined = np.array([i for i, rings in enumerate(sample.polygons or ()) if rings], np.intp)
    return rng.choice(outlined, size=round(share * len(outlined)), replace=False) if len(outlined) else outlined


def copy_paste(sample: Sample, chosen: npt.NDArray[np.intp]) -> Sample:
    """Mirror the chosen objects to the other side of the image where that covers < 30 % of every object."""
    if sample.polygons is None or not len(chosen):
        return sample
    image, flipped, width = sample.image.copy(), cv2.flip(sample.image, 1), sample.size_hw[1]
    parts = [sample]
    boxes = sample.boxes_xyxy
    sign, offset = np.array([-1, 1], np.float32), np.array([width, 0], np.float32)
    for index in chosen.tolist():
        x1, y1, x2, y2 = sample.boxes_xyxy[index].tolist()
        box = np.array([[width - x2, y1, width - x1, y2]], np.float32)
        if cover(box[0], boxes).max(initial=0) >= _MAX_COVER:
            continue
        mirror = outlines.map_points([sample.polygons[index]], lambda points: points * sign + offset)
        mask = outlines.fill_mask(mirror[0], sample.size_hw)
        cv2.copyTo(flipped, mask, image)
        parts.append(replace(select(sample, np.array([index])), boxes_xyxy=box, polygons=mirror))
        boxes = np.concatenate([boxes, box])
    return replace(join(image, parts), letterbox=sample.letterbox)


def cover(box_xyxy: npt.NDArray[np.floating], boxes_xyxy: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Share of the area of each of the ``(n, 4)`` boxes that one ``(4,)`` box covers -> ``(n,)``."""
    top_left = np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    bottom_right = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:])
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return (bottom_right - top_left).clip(0).prod(axis=1) / (sides.prod(axis=1) + 1e-16)


@dataclass(frozen=True, slots=True)
class Donor:
    """One object cut out of its image.

    Attributes:
        crop: ``(h, w, 3)`` uint8 pixels of its box.
        rings: its outline in pixels of ``crop``.
        label: class index.
        identity: -1 for none.
    """

    crop: npt.NDArray[np.uint8]
    rings: Polygons
    label: int
    identity: int


@dataclass(frozen=True, slots=True)
class PasteSlot:
    """A rectangle of the image in which one donor may be pasted; ``choice`` in [0, 1) picks the donor."""

    x1: int
    y1: int
    x2: int
    y2: int
    choice: float


def cut_donors(sample: Sample, indices: npt.NDArray[np.intp]) -> list[Donor]:
    """Cut the outlined objects among ``indices`` out of the image."""
    donors = []
    height, width = sample.size_hw
    for index in indices.tolist():
        rings = sample.polygons[index] if sample.polygons is not None else ()
        box, known = outlines.extents([rings])
        if not known[0]:
            continue
        x1, y1 = np.maximum(np.floor(box[0, :2]), 0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(box[0, 2:]), [width, height]).astype(int).tolist()
        if x2 - x1 < 2 or y2 - y1 < 2:
            continue
        identity = -1 if sample.identities is None else int(sample.identities[index])
        moved = outlines.shift([rings], -x1, -y1)[0]
        donors.append(Donor(sample.image[y1:y2, x1:x2], moved, int(sample.labels[index]), identity))
    return donors


def draw_paste_slots(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[PasteSlot]:
    """Up to twenty rectangles from large to small, a fifth of them left out."""
    height, width = size_hw
    slots = []
    for fraction in _SLOT_FRACTIONS:
        if rng.random() < _SKIP_SLOT:
            continue
        slot_height = int(rng.integers(1, max(1, int(height * fraction)), endpoint=True))
        slot_width = int(rng.integers(1, max(1, int(width * fraction)), endpoint=True))
        x1 = max(0, int(rng.integers(0, width, endpoint=True)) - slot_width // 2)
        y1 = max(0, int(rng.integers(0, height, endpoint=True)) - slot_height // 2)
        x2, y2 = min(width, x1 + slot_width), min(height, y1 + slot_height)
        slots.append(PasteSlot(x1, y1, x2, y2, float(rng.random())))
    return slots


def paste_in(sample: Sample, donors: Sequence[Donor], slots: Sequence[PasteSlot]) -> Sample:
    """Paste one donor into each slot that covers less than 30 % of every object and has both sides over 20 px.

    The donor keeps its aspect ratio, fills the slot as far as it can and starts in its top-left corner.
    """
    if not donors:
        return sample
    image, boxes = sample.image.copy(), sample.boxes_xyxy
    pasted: list[tuple[Donor, Polygons]] = []
    for slot in slots:
        corners = np.array([slot.x1, slot.y1, slot.x2, slot.y2], np.float32)
        if (
            min(slot.x2 - slot.x1, slot.y2 - slot.y1) <= _MIN_SLOT_SIDE
            or cover(corners, boxes).max(initial=0) >= _MAX_COVER
        ):
            continue
        donor = donors[int(slot.choice * len(donors))]
        rings = _paste(image, donor, slot)
        if rings is not None:
            pasted.append((donor, rings))
            boxes = np.concatenate([boxes, outlines.extents([rings])[0]])
    if not pasted:
        return sample
    count = len(pasted)
    added = Sample(
        image=image,
        boxes_xyxy=boxes[-count:],
        labels=np.array([donor.label for donor, _ in pasted], np.int64),
        polygons=tuple(rings for _, rings in pasted),
        identities=np.array([donor.identity for donor, _ in pasted], np.int64)
        if sample.identities is not None
        else None,
    )
    return replace(join(image, [sample, added]), letterbox=sample.letterbox)


def _paste(image: npt.NDArray[np.uint8], donor: Donor, slot: PasteSlot) -> Polygons | None:
    """Paste in place; the outline in pixels of ``image``, or None where the donor would be too small."""
    height, width = donor.crop.shape[:2]
    zoom = min((slot.y2 - slot.y1) / height, (slot.x2 - slot.x1) / width)
    new_height, new_width = int(height * zoom), int(width * zoom)
    if new_height <= _MIN_DONOR_SIDE or new_width <= _MIN_DONOR_SIDE:
        return None
    scale = np.array([new_width / width, new_height / height], np.float32)
    local = outlines.map_points([donor.rings], lambda points: points * scale)
    mask = outlines.fill_mask(local[0], (new_height, new_width))
    if np.count_nonzero(mask) <= _MIN_MASK_PIXELS:
        return None
    window = image[slot.y1 : slot.y1 + new_height, slot.x1 : slot.x1 + new_width]
    cut = outlines.clip(local, (0, 0, new_width, new_height))
    np.copyto(window, cv2.resize(donor.crop, (new_width, new_height)), where=mask[..., None].astype(bool))
    return outlines.shift(cut, slot.x1, slot.y1)[0]
