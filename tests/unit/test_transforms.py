"""What the eye would see: labels stay on their pixels through every transform."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cloverleaf.data.transforms import polygons as outlines
from cloverleaf.data.transforms.geometry import (
    PerspectiveDraw,
    draw_perspective,
    flip,
    letterbox_sample,
    warp,
    warp_image,
)
from cloverleaf.data.transforms.mixing import mixup, mosaic4, mosaic9
from cloverleaf.data.transforms.objects import join, select
from cloverleaf.data.transforms.paste import copy_paste, cut_donors, draw_paste_slots, paste_in
from cloverleaf.structures import Sample

SIZE = 128


def rectangle(box, hw=(SIZE, SIZE), *, outlined=False, label=0, **more) -> Sample:
    """White on black; the box is exact."""
    x1, y1, x2, y2 = box
    image = np.zeros((*hw, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    ring = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    return Sample(
        image=image,
        boxes_xyxy=np.array([box], np.float32),
        labels=np.array([label]),
        polygons=((ring,),) if outlined else None,
        original_hw=hw,
        **more,
    )


def visible(image) -> np.ndarray:
    """Extent of the bright pixels (over grey), xyxy."""
    bright = image[..., 0] > 185
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


TRANSFORMS = {
    "zoom in": lambda s: warp(s, PerspectiveDraw(scale=1.6), (SIZE, SIZE)),
    "zoom out": lambda s: warp(s, PerspectiveDraw(scale=0.4), (SIZE, SIZE)),
    "shift": lambda s: warp(s, PerspectiveDraw(translate_x=0.9, translate_y=0.3), (SIZE, SIZE)),
    "crop": lambda s: warp(s, PerspectiveDraw(), (SIZE // 2, SIZE // 2)),
    "projective": lambda s: warp(s, PerspectiveDraw(projective_x=1e-3, projective_y=-1e-3), (SIZE, SIZE)),
    "shear": lambda s: warp(s, PerspectiveDraw(shear_x=12, shear_y=-6), (SIZE, SIZE)),
    "rotate": lambda s: warp(s, PerspectiveDraw(angle=30, scale=1.2, translate_x=0.4), (SIZE, SIZE)),
    "letterbox": lambda s: letterbox_sample(s, (96, 160)),
    "left-right": lambda s: flip(s, horizontal=True),
    "upside down": lambda s: flip(s, vertical=True),
    "both": lambda s: flip(s, horizontal=True, vertical=True),
    "mosaic4": lambda s: mosaic4([s, blank(s), blank(s), blank(s)], (90, 100), SIZE),
    "mosaic9": lambda s: mosaic9([blank(s), s] + [blank(s)] * 7, (70, 20), SIZE),
}


def blank(sample: Sample) -> Sample:
    return replace(select(sample, np.zeros(len(sample), bool)), image=np.zeros_like(sample.image))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("outlined", [False, True])
@pytest.mark.parametrize("box", [(30, 40, 90, 80), (0, 0, 50, 128), (5, 60, 125, 75)])
def test_boxes_stay_tight_around_the_pixels(name, outlined, box):
    out = TRANSFORMS[name](rectangle(box, outlined=outlined))
    assert len(out) == 1
    seen, box = visible(out.image), out.boxes_xyxy[0]
    if name == "rotate" and not outlined:  # corners only bound a turned shape that is cut at the border
        assert (box[:2] < seen[:2] + 0.5).all() and (box[2:] > seen[2:] - 0.5).all()
    else:
        np.testing.assert_allclose(box, seen, atol=1.6 if name == "rotate" else 1.0)
    if outlined:
        mask = outlines.fill_mask(out.polygons[0], out.size_hw)
        bright = out.image[..., 0] > 185
        assert (mask & bright).sum() / (mask | bright).sum() > 0.9
        np.testing.assert_allclose(outlines.extents(out.polygons)[0][0], out.boxes_xyxy[0], atol=1e-3)


def test_a_rotated_outline_gives_a_tighter_box_than_corners():
    star = np.array([[64, 20], [74, 54], [108, 64], [74, 74], [64, 108], [54, 74], [20, 64], [54, 54]], np.float32)
    image = cv2.fillPoly(np.zeros((SIZE, SIZE, 3), np.uint8), [star.astype(np.int32)], (255, 255, 255))
    with_outline = Sample(image, np.array([[20, 20, 108, 108]], np.float32), np.array([0]), polygons=((star,),))
    draw = PerspectiveDraw(angle=45)
    tight, loose = (
        warp(with_outline, draw, (SIZE, SIZE)),
        warp(replace(with_outline, polygons=None), draw, (SIZE, SIZE)),
    )
    np.testing.assert_allclose(tight.boxes_xyxy[0], visible(tight.image), atol=1.5)
    assert np.ptp(loose.boxes_xyxy[0, ::2]) > 1.3 * np.ptp(tight.boxes_xyxy[0, ::2])


def test_objects_without_outline_keep_their_boxes_beside_outlined_ones():
    first, second = rectangle((10, 10, 40, 40), outlined=True), rectangle((60, 60, 100, 90), label=1)
    both = join(np.maximum(first.image, second.image), [first, second])
    assert both.polygons[1] == ()
    out = warp(both, PerspectiveDraw(scale=1.1), (SIZE, SIZE))
    assert out.labels.tolist() == [0, 1] and (out.boxes_xyxy[:, 2:] > out.boxes_xyxy[:, :2] + 20).all()


@pytest.mark.parametrize("seed", range(20))
def test_clipped_outlines_cover_what_is_inside(seed):
    """Random concave rings cut at a window give the mask of the whole ring, restricted to the window."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(15, 70, 9)
    ring = (np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + rng.uniform(20, 80, 2)).astype(np.float32)
    big = outlines.fill_mask(outlines.shift([(ring,)], 100, 100)[0], (300, 300))[100:200, 100:200]
    cut = outlines.clip([(ring,)], (0, 0, 100, 100))
    if big.sum() < 30:
        return
    points = cut[0][0]
    assert points.min() >= 0 and points.max() <= 100
    small = outlines.fill_mask(cut[0], (100, 100))
    assert (small & big).sum() / (small | big).sum() > 0.97


def test_mask_of_a_rectangle_is_exact():
    for box in ((10, 20, 30, 25), (0, 0, 64, 64), (10.4, 20.4, 30.6, 25.6), (-5, -5, 3, 3)):
        x1, y1, x2, y2 = box
        mask = outlines.fill_mask((np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32),), (64, 64))
        centres = np.arange(64) + 0.5
        expected = ((centres > y1) & (centres < y2))[:, None] & ((centres > x1) & (centres < x2))
        assert np.array_equal(mask, expected), box


def test_everything_that_belongs_to_an_object_travels_with_it():
    parts = [
        rectangle(
            (10, 10, 60, 60), label=1, outlined=True, identities=np.array([7]), tags=np.array([1, 0, 1], np.float32)
        ),
        rectangle((20, 30, 90, 100), label=2),
        rectangle((50, 5, 55, 9), label=3, identities=np.array([9]), tags=np.array([0, 1, 1], np.float32)),
    ]
    tiles = [*parts, blank(parts[0])]
    out = mosaic4(tiles, (SIZE, SIZE), SIZE)
    assert out.labels.tolist() == [1, 2, 3] and out.identities.tolist() == [7, -1, 9] and out.tags[2] == 1
    assert np.isnan(out.tags[:2]).all()  # not known where the tiles disagree
    assert [len(rings) for rings in out.polygons] == [1, 0, 0] and out.letterbox is None
    small = warp(out, PerspectiveDraw(scale=0.4), (2 * SIZE, 2 * SIZE))  # the 5 x 4 object falls under 2 px
    assert small.labels.tolist() == [1, 2] and small.identities.tolist() == [7, -1]
    blend = mixup(parts[0], parts[1], 0.25)
    assert blend.labels.tolist() == [1, 2]
    assert blend.image[12, 12, 0] == 64 and blend.image[95, 85, 0] == 191 and blend.image[40, 40, 0] == 255


def test_perspective_draws_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    draws = [draw_perspective(rng, degrees=5, translate=0.1, scale=0.5, shear=2, perspective=1e-3) for _ in range(500)]
    values = np.array([[d.angle, d.scale, d.shear_x, d.translate_x, d.projective_y] for d in draws])
    low, high = values.min(0), values.max(0)
    np.testing.assert_allclose(low, [-5, 0.5, -2, 0.4, -1e-3], atol=0.05)
    np.testing.assert_allclose(high, [5, 1.6, 2, 0.6, 1e-3], atol=0.05)
    identity = warp_image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.eye(3), (4, 4))
    assert np.array_equal(identity.ravel(), np.arange(48))


def test_copy_paste_mirrors_where_there_is_room():
    sample = rectangle((10, 40, 40, 80), outlined=True, identities=np.array([3]))
    out = copy_paste(sample, np.array([0]))
    assert out.boxes_xyxy.tolist() == [[10, 40, 40, 80], [88, 40, 118, 80]] and out.identities.tolist() == [3, 3]
    assert (out.image[40:80, 88:118] == 255).all() and out.image.sum() == 2 * sample.image.sum()
    centred = rectangle((40, 40, 80, 80), outlined=True)
    assert len(copy_paste(centred, np.array([0]))) == 1
    assert sample.image[50, 100, 0] == 0  # the input is not changed


def test_paste_in_keeps_masks_pixels_and_boxes_together():
    """Black-and-white donors on grey ground: exactly the mask of each label changed, black pixels included."""
    donor = rectangle((30, 30, 70, 60), outlined=True, label=5)
    donor.image[40:50, 30:70] = 0
    donors = cut_donors(donor, np.array([0]))
    ground = replace(blank(rectangle((0, 0, 9, 9), outlined=True)), image=np.full((200, 300, 3), 114, np.uint8))
    out = paste_in(ground, donors, draw_paste_slots(np.random.default_rng(3), (200, 300)))
    assert len(out) >= 3 and set(out.labels.tolist()) == {5}
    union = np.zeros((200, 300), bool)
    for rings, box in zip(out.polygons, out.boxes_xyxy, strict=True):
        union |= outlines.fill_mask(rings, (200, 300)).astype(bool)
        np.testing.assert_allclose(outlines.extents([rings])[0][0], box, atol=1e-3)
    changed = out.image[..., 0] != 114
    assert (changed & ~union).sum() == 0 and (union & ~changed).sum() < 0.05 * union.sum()
    assert (out.image[union] < 20).any() and (out.image[union] > 230).any() and (ground.image == 114).all()
    repeated = paste_in(ground, donors, draw_paste_slots(np.random.default_rng(3), (200, 300)))
    assert np.array_equal(repeated.image, out.image)
    assert paste_in(ground, [], draw_paste_slots(np.random.default_rng(3), (200, 300))) is ground
