"""Images in, detections out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from cloverleaf.errors import ConfigError, suggest
from cloverleaf.models.detector import Detector
from cloverleaf.ops.letterbox import LetterboxTransform, letterbox, unletterbox_boxes
from cloverleaf.predict.detect import to_input
from cloverleaf.predict.engine import Engine, Precision, open_engine
from cloverleaf.predict.selection import choose_suppression, select
from cloverleaf.predict.sources import Picture, to_picture
from cloverleaf.structures.detections import Detections

_BLOCK = 64  # images of a long list that are in memory at once


class Predictor:
    """A detector with its pre- and post-processing, by the published detection protocol of YOLOv7.

    Args:
        weights: a weights file, a file made by `export`, a detector in memory (it is copied), or an engine.
        confidence: detections scored at or below it are dropped, in [0, 1). None takes 0.25, or what is fixed inside
            the exported file; the same for the next two.
        iou: NMS threshold, in (0, 1]; None takes 0.45.
        max_detections: at most so many per image; None takes 300.
        image_size: long side of the network input in pixels; None takes the one the weights were trained with.
            Rounded up to a multiple of the model's stride, with a warning.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        classes: names or label numbers to keep; None keeps all.
        class_agnostic: boxes suppress those of other classes too.
        batch_size: images per forward pass; only images of equal network-input size share one.
        precision: of the network: ``fp32``, ``bf16`` or ``fp16``.
        fuse: fold the training form into the faster deploy form (same results within rounding).

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: a threshold is out of range, a class or a device does not exist, or an exported file is asked for
            what it cannot change any more.

    Example:
        >>> predictor = Predictor("weights/best.safetensors", confidence=0.4)  # doctest: +SKIP
        >>> for box, score, label, name in predictor("photo.jpg"):  # doctest: +SKIP
        ...     print(name, score, box)
    """

    def __init__(
        self,
        weights: str | Path | Detector | Engine,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        image_size: int | None = None,
        device: str | torch.device = "auto",
        classes: Iterable[str | int] | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        batch_size: int = 8,
        precision: Precision = "fp32",
        fuse: bool = True,
    ) -> None:
        if image_size is not None and image_size < 1:
            raise ConfigError(f"image size {image_size} is out of range", "wanted at least 1 pixel", "try 640")
        if batch_size < 1:
            raise ConfigError(f"batch size {batch_size} is out of range", "wanted at least 1", "leave it out")
        self.engine = open_engine(weights, device=device, precision=precision, fuse=fuse)
        info = self.engine.info
        self.image_size = info.choose_image_size(image_size)
        self.class_names = info.class_names or tuple(f"class {k}" for k in range(info.num_classes))
        self.category_ids = info.category_ids
        self.classes = None if classes is None else resolve_classes(classes, self.class_names)
        self.suppression = choose_suppression(
            info, confidence=confidence, iou=iou, max_detections=max_detections, class_agnostic=class_agnostic
        )
        self.class_agnostic, self.batch_size = class_agnostic, batch_size

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Detections]: ...
    @overload
    def __call__(self, images: Any) -> Detections: ...
    def __call__(self, images: Any) -> Detections | list[Detections]:
        """Detect.

        Args:
            images: one image or a list: paths, Pillow images, or arrays ``(H, W, 3)`` uint8 RGB (grey, RGBA, 16-bit
                and float in [0, 1] work too).

        Returns:
            `Detections` in pixels of the original image, by descending score; a list of them for a list.

        Raises:
            ImageError: something cannot be read or is no image.
        """
        if isinstance(images, list | tuple):
            blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
            return [found for block in blocks for found in self.detect([to_picture(image) for image in block])]
        return self.detect([to_picture(images)])[0]

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Detections of every picture, in the same order."""
        info = self.engine.info
        boxed = [
            letterbox(picture.pixels, (self.image_size, self.image_size), auto=not info.fixed, stride=info.stride)
            for picture in pictures
        ]
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, (image, _) in enumerate(boxed):
            by_shape[image.shape].append(i)
        found: dict[int, Detections] = {}
        with torch.inference_mode():
            for members in by_shape.values():
                for start in range(0, len(members), self.batch_size):
                    chosen = members[start : start + self.batch_size]
                    found.update(zip(chosen, self._detect_batch(chosen, pictures, boxed), strict=True))
        return [found[i] for i in range(len(pictures))]

    def _detect_batch(
        self,
        chosen: Sequence[int],
        pictures: Sequence[Picture],
        boxed: Sequence[tuple[np.ndarray, LetterboxTransform]],
    ) -> list[Detections]:
        """One forward pass over images of one shape."""
        images = torch.from_numpy(np.stack([boxed[i][0] for i in chosen])).permute(0, 3, 1, 2)
        output = self.engine.infer(to_input(images, self.engine.device))
        kept = select(output, self.suppression, class_agnostic=self.class_agnostic, classes=self.classes)
        return [
            self._to_original(pictures[i], boxed[i][1], *(part.cpu().numpy() for part in parts))
            for i, parts in zip(chosen, kept, strict=True)
        ]

    def _to_original(
        self, picture: Picture, transform: LetterboxTransform, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> Detections:
        """Back to pixels of the original image; boxes that lie wholly outside it are dropped."""
        scale_x, scale_y, left, top = transform
        (height, width), (original_height, original_width) = picture.pixels.shape[:2], picture.original_hw
        whole = (scale_x * width / original_width, scale_y * height / original_height, left, top)
        xyxy = unletterbox_boxes(boxes, whole, picture.original_hw).astype(np.float32)
        inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return Detections(
            xyxy=xyxy[inside],
            scores=scores[inside].astype(np.float32),
            labels=labels[inside].astype(np.int64),
            class_names=self.class_names,
            image_hw=picture.original_hw,
            source=picture.source,
            category_ids=self.category_ids,
        )


def resolve_classes(classes: Iterable[str | int], names: Sequence[str]) -> tuple[int, ...]:
    """Labels of classes given by name or by number (also as text, where no class has that name).

    Raises:
        ConfigError: no such class, or none given.
    """
    labels = []
    for item in [classes] if isinstance(classes, str | int) else classes:
        if isinstance(item, str) and item in names:
            labels.append(names.index(item))
            continue
        text = str(item).strip()
        if isinstance(item, bool) or not text.lstrip("-").isdecimal():
            raise ConfigError(f"the model has no class {item!r}", f"it knows {len(names)}", suggest(str(item), names))
        if not 0 <= int(text) < len(names):
            raise ConfigError(
                f"the model has no class {item}", f"labels run from 0 to {len(names) - 1}", "use a name or a label"
            )
        labels.append(int(text))
    if not labels:
        raise ConfigError("no class is left to detect", "the list of classes is empty", "leave it out to keep all")
    return tuple(sorted(set(labels)))
