"""Images in, detections out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from cloverleaf.data.transforms.whole_images import EvalTransform
from cloverleaf.errors import ConfigError, suggest
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import Task
from cloverleaf.ops.letterbox import LetterboxTransform, letterbox, unletterbox_boxes
from cloverleaf.ops.masks import to_label_map
from cloverleaf.predict.detect import to_input
from cloverleaf.predict.engine import Engine, Precision, open_engine, segmenting
from cloverleaf.predict.instances import CONFIDENCE, check_most, place
from cloverleaf.predict.selection import choose_suppression, refuse_thresholds, select
from cloverleaf.predict.sources import Picture, to_picture
from cloverleaf.structures import Classification, Detections, LabelMap, Mask

Result = TypeVar("Result")
_BLOCK = 64  # images of a long list that are in memory at once


class Predictor:
    """A model with its pre- and post-processing; boxes by the published detection protocol of YOLOv7.

    A model for boxes or for instances gives `Detections`, those of the latter with masks; one for pixels gives a
    `LabelMap` through `segment`, one for whole images a `Classification` through `classify`.

    Args:
        weights: a weights file, a file made by `export`, a detector in memory (it is copied), or an engine.
        confidence: detections scored at or below it are dropped, in [0, 1). None takes 0.25, or what is fixed inside
            the exported file; the same for the next two. For instances None takes 0.5.
        iou: NMS threshold, in (0, 1]; None takes 0.45. Not for instances, whose suppression is in their model.
        max_detections: at most so many per image; None takes 300, or what the model gives at most.
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
        refuse_thresholds(
            info, confidence=confidence, iou=iou, max_detections=max_detections, class_agnostic=class_agnostic,
            classes=classes,
        )  # fmt: skip
        if info.task == "instance":
            confidence = CONFIDENCE if confidence is None else confidence
            check_most(info, max_detections)
        self.suppression = choose_suppression(
            info, confidence=confidence, iou=iou, max_detections=max_detections, class_agnostic=class_agnostic
        )
        self.class_agnostic, self.batch_size = class_agnostic, batch_size

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Detections]: ...
    @overload
    def __call__(self, images: Any) -> Detections: ...
    def __call__(self, images: Any) -> Detections | list[Detections]:
        """Detect; for a semantic model call `segment`.

        Args:
            images: one image or a list: paths, Pillow images, or arrays ``(H, W, 3)`` uint8 RGB (grey, RGBA, 16-bit
                and float in [0, 1] work too).

        Returns:
            `Detections` in pixels of the original image, by descending score; a list of them for a list.

        Raises:
            ImageError: something cannot be read or is no image.
            ConfigError: the model gives label maps or classes of images.
        """
        if isinstance(images, list | tuple):
            blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
            return [found for block in blocks for found in self.detect([to_picture(image) for image in block])]
        return self.detect([to_picture(images)])[0]

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Detections of every picture, in the same order.

        Raises:
            ConfigError: the model gives label maps or classes of images.
        """
        if self.task in ("semantic", "classify"):
            kind, call = ("pixels", "segment") if self.task == "semantic" else ("whole images", "classify")
            raise ConfigError(
                f"{self.engine.info.name} gives no detections", f"it is a model for {kind}", f"call {call}(images)"
            )
        infer = self._boxes if self.task == "detect" else self._instances
        return self._in_batches(pictures, infer)

    def segment(self, images: Sequence[Any]) -> list[LabelMap]:
        """Of a model for pixels the class of every pixel of each image.

        Args:
            images: as for calling the predictor.

        Raises:
            ImageError: something cannot be read or is no image.
            ConfigError: the model gives detections.
        """
        if self.task != "semantic":
            raise ConfigError(
                f"{self.engine.info.name} gives no label maps", f"it is a model for --task {self.task}",
                "call classify(images)" if self.task == "classify" else "call the predictor itself",
            )  # fmt: skip
        blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
        return [
            found
            for block in blocks
            for found in self._in_batches([to_picture(image) for image in block], self._label_maps)
        ]

    def classify(self, images: Sequence[Any]) -> list[Classification]:
        """Of a model for whole images the probability of every class, image by image.

        The image is seen as it is judged: up to 224 pixels its centre, in a larger input the whole of it.

        Args:
            images: as for calling the predictor.

        Raises:
            ImageError: something cannot be read or is no image.
            ConfigError: the model is for something else.
        """
        if self.task != "classify":
            raise ConfigError(
                f"{self.engine.info.name} gives no classes of images", f"it is a model for --task {self.task}",
                "call segment(images)" if self.task == "semantic" else "call the predictor itself",
            )  # fmt: skip
        seen, found = EvalTransform(self.image_size), []
        for start in range(0, len(images), self.batch_size):
            pictures = [to_picture(image) for image in images[start : start + self.batch_size]]
            pixels = torch.from_numpy(np.stack([seen(picture.pixels) for picture in pictures])).permute(0, 3, 1, 2)
            with torch.inference_mode():
                probabilities = self.engine.classify(to_input(pixels, self.engine.device)).cpu().numpy()
            found += [
                Classification(row, self.class_names, picture.original_hw, picture.source)
                for row, picture in zip(probabilities, pictures, strict=True)
            ]
        return found

    @property
    def task(self) -> Task:
        """What the model gives: boxes, instances, pixels or classes of images."""
        return self.engine.info.task

    def _in_batches(
        self, pictures: Sequence[Picture], infer: Callable[[Tensor, list[_Boxed]], list[Result]]
    ) -> list[Result]:
        """Letterbox, and run images of one input size together; results in the order of the pictures."""
        info = self.engine.info
        side = (self.image_size, self.image_size)
        boxed = [
            _Boxed(picture, *letterbox(picture.pixels, side, auto=not info.fixed, stride=info.stride))
            for picture in pictures
        ]
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, item in enumerate(boxed):
            by_shape[item.image.shape].append(i)
        found: dict[int, Result] = {}
        with torch.inference_mode():
            for members in by_shape.values():
                for start in range(0, len(members), self.batch_size):
                    chosen = members[start : start + self.batch_size]
                    images = torch.from_numpy(np.stack([boxed[i].image for i in chosen])).permute(0, 3, 1, 2)
                    results = infer(to_input(images, self.engine.device), [boxed[i] for i in chosen])
                    found.update(zip(chosen, results, strict=True))
        return [found[i] for i in range(len(pictures))]

    def _boxes(self, pixels: Tensor, boxed: list[_Boxed]) -> list[Detections]:
        """Boxes that lie wholly outside their image are dropped."""
        output = self.engine.infer(pixels)
        kept = select(output, self.suppression, class_agnostic=self.class_agnostic, classes=self.classes)
        results = []
        for item, parts in zip(boxed, kept, strict=True):
            boxes, scores, labels = (part.cpu().numpy() for part in parts)
            xyxy = unletterbox_boxes(boxes, item.whole, item.picture.original_hw).astype(np.float32)
            inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
            results.append(self._detections(item, xyxy[inside], scores[inside], labels[inside]))
        return results

    def _instances(self, pixels: Tensor, boxed: list[_Boxed]) -> list[Detections]:
        limits = self.suppression
        found = segmenting(self.engine).instances(
            pixels, confidence=limits.confidence, max_detections=limits.max_detections
        )
        results = []
        for item, instances in zip(boxed, found, strict=True):
            boxes, scores, labels, masks = place(instances, item.whole, item.picture.original_hw)
            detections = self._detections(item, boxes, scores, labels, masks)
            results.append(detections if self.classes is None else detections[np.isin(labels, self.classes)])
        return results

    def _label_maps(self, pixels: Tensor, boxed: list[_Boxed]) -> list[LabelMap]:
        logits = segmenting(self.engine).segment(pixels)
        return [
            LabelMap(to_label_map(values, item.whole, item.picture.original_hw), self.class_names, item.picture.source)
            for item, values in zip(boxed, logits, strict=True)
        ]

    def _detections(
        self,
        item: _Boxed,
        xyxy: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        masks: tuple[Mask, ...] | None = None,
    ) -> Detections:
        return Detections(
            xyxy=xyxy,
            scores=scores.astype(np.float32),
            labels=labels.astype(np.int64),
            class_names=self.class_names,
            image_hw=item.picture.original_hw,
            source=item.picture.source,
            category_ids=self.category_ids,
            masks=masks,
        )


@dataclass(frozen=True, slots=True)
class _Boxed:
    """A picture in the form of the network's input, and where it lies there."""

    picture: Picture
    image: np.ndarray
    transform: LetterboxTransform

    @property
    def whole(self) -> LetterboxTransform:
        """From pixels of the original, of which the picture may be a reduced form, to those of the input."""
        scale_x, scale_y, left, top = self.transform
        (height, width), (original_height, original_width) = self.picture.pixels.shape[:2], self.picture.original_hw
        return scale_x * width / original_width, scale_y * height / original_height, left, top


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
