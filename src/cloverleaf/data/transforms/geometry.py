"""Random perspective and flips: image, boxes and outlines move together.

Formulas and draw order of the published YOLOv7 code (arXiv 2207.02696); golden numbers pin them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.transforms import polygons as outlines
from cloverleaf.data.transforms.objects import select
from cloverleaf.ops.letterbox import LetterboxTransform, letterbox
from cloverleaf.structures import Sample

Matrix = npt.NDArray[np.float64]

GREY = 114
_MIN_SIDE = 2.0
_MAX_ASPECT = 20.0
_MIN_AREA_BOX = 0.10
_MIN_AREA_OUTLINE = 0.01
_HALF_MORE = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
_HALF_LESS = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])


@dataclass(frozen=True, slots=True)
class PerspectiveDraw:
    """Numbers drawn for `warp`, already scaled to their ranges.

    Attributes:
        projective_x, projective_y: third row of the projective part.
        angle, shear_x, shear_y: degrees.
        scale: zoom factor.
        translate_x, translate_y: place of the input's centre as a fraction of the output size.
    """

    projective_x: float = 0.0
    projective_y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    translate_x: float = 0.5
    translate_y: float = 0.5


def draw_perspective(
    rng: np.random.Generator,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    perspective: float = 0.0,
    extra_zoom: float = 0.1,
) -> PerspectiveDraw:
    """Draw in the published order; the zoom comes from [1 - scale, 1 + scale + extra_zoom].

    The published YOLOv7 has 0.1 more at the upper end, YOLOR has not.
    """
    return PerspectiveDraw(
        projective_x=rng.uniform(-perspective, perspective),
        projective_y=rng.uniform(-perspective, perspective),
        angle=rng.uniform(-degrees, degrees),
        scale=rng.uniform(1 - scale, 1 + extra_zoom + scale),
        shear_x=rng.uniform(-shear, shear),
        shear_y=rng.uniform(-shear, shear),
        translate_x=rng.uniform(0.5 - translate, 0.5 + translate),
        translate_y=rng.uniform(0.5 - translate, 0.5 + translate),
    )


def perspective_matrix(draw: PerspectiveDraw, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> Matrix:
    """``(3, 3)`` map of input to output pixels: centre, project, rotate and zoom, shear, translate."""
    centre = np.eye(3)
    centre[:2, 2] = -input_hw[1] / 2, -input_hw[0] / 2
    project = np.eye(3)
    project[2, :2] = draw.projective_x, draw.projective_y
    angle = math.radians(draw.angle)
    cosine, sine = draw.scale * math.cos(angle), draw.scale * math.sin(angle)
    rotate = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = math.tan(math.radians(draw.shear_x)), math.tan(math.radians(draw.shear_y))
    translate = np.eye(3)
    translate[:2, 2] = draw.translate_x * output_hw[1], draw.translate_y * output_hw[0]
    return translate @ shear @ rotate @ project @ centre


def warp(sample: Sample, draw: PerspectiveDraw, output_hw: tuple[int, int]) -> Sample:
    """Warp the image; move boxes and outlines with it and drop the objects of which too little is left.

    An object with an outline gets the extent of its outline inside the output as its box; one without gets the
    axis-aligned extent of its four moved corners.
    """
    matrix = perspective_matrix(draw, sample.size_hw, output_hw)
    identity = sample.size_hw == output_hw and np.array_equal(matrix, np.eye(3))
    image = sample.image if identity else warp_image(sample.image, matrix, output_hw)
    boxes = transform_boxes(sample.boxes_xyxy, matrix, output_hw)
    moved, outlined = sample.polygons, np.zeros(len(sample), bool)
    if sample.polygons is not None:
        _, outlined = outlines.extents(sample.polygons)
        cut = outlines.map_points(sample.polygons, lambda points: transform_points(points, matrix))
        moved = outlines.clip(cut, (0, 0, output_hw[1], output_hw[0]))
        around, _ = outlines.extents(moved)
        boxes[outlined] = around[outlined]
    keep = is_candidate(
        sample.boxes_xyxy * draw.scale, boxes, np.where(outlined, _MIN_AREA_OUTLINE, _MIN_AREA_BOX)
    )  # fmt: skip
    warped = replace(sample, image=image, boxes_xyxy=boxes.astype(np.float32), polygons=moved)
    if sample.covered is not None:
        turned = outlines.map_points([sample.covered], lambda points: transform_points(points, matrix))
        warped = replace(warped, covered=turned[0])
    return select(warped if identity else replace(warped, letterbox=None), keep)


def warp_image(image: npt.NDArray[np.uint8], matrix: Matrix, output_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resample with bilinear interpolation; what comes from outside is grey 114.

    ``matrix`` maps continuous coordinates, as boxes are meant: a pixel's centre is at +0.5. OpenCV puts it at +0, so
    the matrix is shifted; the published code does not, which is up to half a pixel off when zooming
    (docs/fidelity.md, entry 31).
    """
    matrix = _HALF_LESS @ matrix @ _HALF_MORE
    size, border = output_hw[::-1], (GREY, GREY, GREY)
    if matrix[2, 0] or matrix[2, 1]:
        return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=border)
    return cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=border)


def transform_points(points: npt.NDArray[np.floating], matrix: Matrix) -> npt.NDArray[np.float64]:
    """``(P, 2)`` points through a ``(3, 3)`` projective map."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    if matrix[2, 0] or matrix[2, 1]:
        moved[:, :2] /= moved[:, 2:]
    return moved[:, :2]


def transform_boxes(
    boxes_xyxy: npt.NDArray[np.floating], matrix: Matrix, output_hw: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Axis-aligned extent of the four moved corners of each ``(n, 4)`` box, clipped to the output."""
    corners = boxes_xyxy[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2)
    moved = transform_points(corners, matrix).reshape(-1, 4, 2)
    extent = np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
    return extent.clip(0, [output_hw[1], output_hw[0]] * 2)


def is_candidate(
    before: npt.NDArray[np.floating], after: npt.NDArray[np.floating], min_area: float | npt.NDArray[np.floating]
) -> npt.NDArray[np.bool_]:
    """Which boxes are still worth learning: sides over 2 px, aspect under 20, area share over ``min_area``.

    Args:
        before: ``(n, 4)`` xyxy, the original boxes times the zoom.
        after: ``(n, 4)`` xyxy, the boxes in the output.
        min_area: smallest share of the area that must be left, per box or for all.
    """
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    area = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
    aspect = np.maximum(width / (height + 1e-16), height / (width + 1e-16))
    share = width * height / (area + 1e-16)
    return (width > _MIN_SIDE) & (height > _MIN_SIDE) & (aspect < _MAX_ASPECT) & (share > min_area)


def flip(sample: Sample, *, horizontal: bool = False, vertical: bool = False) -> Sample:
    """Mirror left-right and / or upside down."""
    if not (horizontal or vertical):
        return sample
    height, width = sample.size_hw
    boxes = sample.boxes_xyxy.copy()
    sign, offset = np.ones(2, np.float32), np.zeros(2, np.float32)
    if horizontal:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        sign[0], offset[0] = -1, width
    if vertical:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        sign[1], offset[1] = -1, height
    image = cv2.flip(sample.image, -1 if horizontal and vertical else 1 if horizontal else 0)
    moved = outlines.map_sample(sample, lambda points: points * sign + offset)
    return replace(moved, image=image, boxes_xyxy=boxes, letterbox=None)


def letterbox_sample(sample: Sample, size_hw: int | tuple[int, int], *, scale_up: bool = True) -> Sample:
    """Letterbox the image with its objects; ``sample.letterbox`` then maps from the stored image to the result."""
    image, transform = letterbox(sample.image, size_hw, scale_up=scale_up)
    return move(replace(sample, image=image), transform)


def move(sample: Sample, transform: LetterboxTransform) -> Sample:
    """Scale and shift the objects (not the image) by (scale_x, scale_y, left, top) and note it in ``letterbox``."""
    scale_x, scale_y, left, top = transform
    scale, offset = np.array([scale_x, scale_y], np.float32), np.array([left, top], np.float32)
    before, noted = sample.letterbox, None
    if before is not None:
        noted = before[0] * scale_x, before[1] * scale_y, before[2] * scale_x + left, before[3] * scale_y + top
    boxes = sample.boxes_xyxy * np.tile(scale, 2) + np.tile(offset, 2)
    moved = outlines.map_sample(sample, lambda points: points * scale + offset)
    return replace(moved, boxes_xyxy=boxes, letterbox=noted)
