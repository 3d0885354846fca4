"""Labelled boxes on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.masks import mask_colours, scaled, shade_masks
from cloverleaf.drawing.palette import class_colours, ink_on
from cloverleaf.drawing.text import FONT, label_texts
from cloverleaf.structures.masks import Mask

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]
Texts = Literal["all", "fitting", "none"]
_SHADE = 0.35  # how strongly outlines are filled


def draw_boxes(
    image: Pixels,
    boxes_xyxy: Numbers,
    labels: Numbers,
    names: Sequence[str],
    *,
    scores: Numbers | None = None,
    outlines: Sequence[Sequence[Numbers]] | None = None,
    masks: Sequence[Mask] | None = None,
    side: int | None = None,
    texts: Texts = "all",
) -> Pixels:
    """A copy of ``image`` with boxes in the classes' colours; lines and text follow its size.

    Names stand above, below or inside their boxes, within the frame and off each other where there is room. The best
    score, or else the smallest object, is on top.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes_xyxy: ``(n, 4)`` pixels of ``image``.
        labels: ``(n,)`` class indices.
        names: class names.
        scores: ``(n,)``, written behind the names.
        outlines: per object its rings ``(k, 2)`` in pixels of ``image``, which are shaded.
        masks: per object its mask in pixels of ``image``, which is laid over it in place of the box. If there is but
            one class, each object has a colour of its own and the name is left out.
        side: longest side of the result; None leaves the size.
        texts: ``all`` writes every name, ``fitting`` leaves out those for which there is no room.
    """
    height, width = image.shape[:2]
    zoom = 1.0 if side is None else side / max(height, width)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    scene = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    if not len(labels):
        return np.ascontiguousarray(scene).astype(np.uint8)
    boxes = np.asarray(boxes_xyxy, np.float32).reshape(-1, 4) * zoom
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order = np.argsort(-area if scores is None else np.asarray(scores), kind="stable")  # from the bottom to the top
    chosen = np.asarray(labels).astype(np.int64)[order]
    if masks is not None:
        moved = scaled([masks[k] for k in order.tolist()], (height, width), (size[1], size[0]))
        scene = shade_masks(scene, moved, mask_colours(chosen, len(names)))
    if outlines is not None:
        scene = _shade(scene, [[ring * zoom for ring in outlines[k]] for k in order.tolist()], chosen)
    words = label_texts(names, chosen.tolist())
    if masks is not None and len(names) == 1:
        words = [""] * len(words)  # the same name on hundreds of masks would only hide them
    if scores is not None:
        found = np.asarray(scores)[order].tolist()
        words = [f"{word} {score:.2f}".lstrip() for word, score in zip(words, found, strict=True)]
    return annotate_boxes(scene, boxes[order], chosen, words, texts if any(words) else "none", frames=masks is None)


def annotate_boxes(
    scene: Pixels, boxes: Numbers, labels: Numbers, words: Sequence[str], texts: Texts, *, frames: bool
) -> Pixels:
    """Draw boxes (where frames are wanted) and words with supervision; the last has the best place.

    Args:
        scene: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(n, 4)`` pixels of ``scene``.
        labels: ``(n,)`` places in the palette, at least one.
        words: what is written beside each.
        texts: as for `draw_boxes`.
        frames: draw the boxes.
    """
    import supervision as sv

    table = [tuple(row) for row in class_colours(int(labels.max()) + 1).tolist()]
    palette = sv.ColorPalette([sv.Color(*colour) for colour in table])
    inks = sv.ColorPalette([sv.Color(*ink_on(colour)) for colour in table])
    length = float(np.sqrt(scene.shape[0] * scene.shape[1]))
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1))
    thickness = max(1, round(min(length / 320 + 0.5, float(np.median(sides)) / 12)))
    scale = max(0.36, length / 1900)
    text_thickness, padding = max(1, round(scale * 1.6)), max(2, round(scale * 6))
    canvas = np.ascontiguousarray(scene[:, :, ::-1])
    found = sv.Detections(xyxy=boxes.astype(np.float32), class_id=labels)
    if frames:
        canvas = sv.BoxAnnotator(color=palette, thickness=thickness).annotate(canvas, found)
    if texts != "none":
        sizes = [cv2.getTextSize(word, FONT, scale, text_thickness)[0] for word in words]
        corners = place_labels(boxes, np.array(sizes) + 2 * padding, (scene.shape[0], scene.shape[1]), texts == "all")
        kept = ~np.isnan(corners[:, 0])
        labelled = sv.Detections(xyxy=np.concatenate([corners, corners + 1], 1)[kept], class_id=labels[kept])
        annotator = sv.LabelAnnotator(
            color=palette,
            text_color=inks,
            text_scale=scale,
            text_thickness=text_thickness,
            text_padding=padding,
        )
        canvas = annotator.annotate(canvas, labelled, labels=[words[k] for k in np.flatnonzero(kept).tolist()])
    return np.ascontiguousarray(canvas[:, :, ::-1])


def place_labels(boxes: Numbers, sizes_wh: Numbers, frame_hw: tuple[int, int], every: bool) -> Numbers:
    """Lower left corners ``(n, 2)`` of labels; NaN where there is no room and not ``every`` one is wanted.

    Args:
        boxes: ``(n, 4)``; the last has the first choice.
        sizes_wh: ``(n, 2)`` sizes of the labels in pixels.
        frame_hw: the picture; labels stay inside it.
        every: a label that finds no room stands over others.
    """
    height, width = frame_hw
    corners = np.full((len(boxes), 2), np.nan)
    taken = np.zeros((0, 4))
    for k in range(len(boxes) - 1, -1, -1):
        (x1, y1, x2, y2), (w, h) = boxes[k].tolist(), sizes_wh[k].tolist()
        roomy = x2 - x1 > w and y2 - y1 > 3 * h  # the label may stand inside without hiding the object
        left = min(max(x1, 0), max(width - w, 0))
        tops = (y1 - h, y1, y2, y2 - h) if roomy else (y1 - h, y2)
        places = [(left, top, left + w, top + h) for top in tops if top >= 0 and top + h <= height]
        free = [place for place in places if not _overlaps(np.array(place), taken)]
        if not free and every:
            top = min(max(y1 - h, 0), max(height - h, 0))
            free = [(left, top, left + w, top + h)]
        if free:
            corners[k] = free[0][0], free[0][3]
            taken = np.concatenate([taken, [free[0]]])
    return corners


def _overlaps(place: Numbers, taken: Numbers) -> bool:
    return bool(((place[:2] < taken[:, 2:]) & (taken[:, :2] < place[2:])).all(1).any())


def _shade(scene: Pixels, outlines: Sequence[Sequence[Numbers]], labels: Numbers) -> Pixels:
    """Outlines filled with a thin layer of their classes' colours."""
    layer = scene.copy()
    table = class_colours(int(labels.max()) + 1).tolist()
    for rings, label in zip(outlines, labels.tolist(), strict=True):
        points = [np.round(ring * 8).astype(np.int32) for ring in rings]
        cv2.fillPoly(layer, points, table[label], lineType=cv2.LINE_AA, shift=3)
    return cv2.addWeighted(layer, _SHADE, scene, 1 - _SHADE, 0).astype(np.uint8)
