"""Images in, detections out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from cloverleaf.data.transforms.whole_images import EvalTransform
from cloverleaf.errors import ConfigError
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import Task
from cloverleaf.ops.letterbox import unletterbox_boxes
from cloverleaf.ops.masks import to_label_map
from cloverleaf.predict.boxed import Boxed, in_batches
from cloverleaf.predict.classes import resolve_classes
from cloverleaf.predict.detect import to_input
from cloverleaf.predict.engine import Engine, Precision, Several, open_engine, segmenting
from cloverleaf.predict.instances import CONFIDENCE, check_most, place
from cloverleaf.predict.multi import embed_boxes, to_boxes, with_further
from cloverleaf.predict.selection import choose_suppression, refuse_thresholds, select
from cloverleaf.predict.sources import Picture, to_picture
from cloverleaf.structures import Classification, Detections, LabelMap, Mask

Result = TypeVar("Result")
_BLOCK = 64  # images of a long list that are in memory at once


class Predictor:
    """A model with its pre- and post-processing; boxes by the published detection protocol of YOLOv7.

    A model for boxes or for instances gives `Detections`, those of the latter with masks; one for pixels gives a
    `LabelMap` through `segment`, one for whole images a `Classification` through `classify`. `Detections` of a model
    for several tasks have tags, embeddings or both; `embed` gives embeddings of other boxes.

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
        infer = self._instances if self.task == "instance" else self._boxes
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

    def embed(self, images: Sequence[Any], boxes_xyxy: Sequence[Any]) -> list[np.ndarray]:
        """Of a model with embeddings those of given boxes, such as annotated ones, image by image.

        Args:
            images: as for calling the predictor.
            boxes_xyxy: per image ``(n, 4)`` in its pixels.

        Returns:
            Per image ``(n, D)`` float32, rows of length 1: the dot product of two is the cosine of their similarity.

        Raises:
            ImageError: something cannot be read or is no image.
            ConfigError: the model has no embeddings, or boxes do not fit the images.
        """
        strides = self.engine.info.embedding_strides
        if not strides:
            raise ConfigError(
                f"{self.engine.info.name} gives no embeddings", f"it is a model for --task {self.task}",
                "train one with --task multi",
            )  # fmt: skip
        boxes = to_boxes(boxes_xyxy, len(images))

        def infer(pixels: Tensor, places: list[int], boxed: list[Boxed]) -> list[np.ndarray]:
            maps = self.engine.several(pixels).maps
            assert maps is not None
            return list(embed_boxes(maps, strides, [boxes[i] for i in places], [item.whole for item in boxed]))

        pictures = [to_picture(image) for image in images]
        return in_batches(self.engine, pictures, infer, image_size=self.image_size, batch_size=self.batch_size)

    @property
    def task(self) -> Task:
        """What the model gives: boxes, instances, pixels, classes of images, or boxes with further tasks."""
        return self.engine.info.task

    def _in_batches(
        self, pictures: Sequence[Picture], infer: Callable[[Tensor, list[Boxed]], list[Result]]
    ) -> list[Result]:
        return in_batches(
            self.engine, pictures, lambda pixels, _, boxed: infer(pixels, boxed),
            image_size=self.image_size, batch_size=self.batch_size,
        )  # fmt: skip

    def _boxes(self, pixels: Tensor, boxed: list[Boxed]) -> list[Detections]:
        """Boxes that lie wholly outside their image are dropped."""
        several = self.task == "multi"
        output = self.engine.several(pixels) if several else Several(self.engine.infer(pixels))
        kept = select(output.boxes, self.suppression, class_agnostic=self.class_agnostic, classes=self.classes)
        results = []
        for item, parts in zip(boxed, kept, strict=True):
            boxes, scores, labels = (part.cpu().numpy() for part in parts)
            xyxy = unletterbox_boxes(boxes, item.whole, item.picture.original_hw).astype(np.float32)
            inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
            results.append(self._detections(item, xyxy[inside], scores[inside], labels[inside]))
        if not several:
            return results
        return with_further(results, output, self.engine.info, [item.whole for item in boxed])

    def _instances(self, pixels: Tensor, boxed: list[Boxed]) -> list[Detections]:
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

    def _label_maps(self, pixels: Tensor, boxed: list[Boxed]) -> list[LabelMap]:
        logits = segmenting(self.engine).segment(pixels)
        return [
            LabelMap(to_label_map(values, item.whole, item.picture.original_hw), self.class_names, item.picture.source)
            for item, values in zip(boxed, logits, strict=True)
        ]

    def _detections(
        self,
        item: Boxed,
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
