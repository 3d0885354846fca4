"""Run a detector over a dataset and judge what it finds; training and `cloverleaf val` use the same code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cloverleaf.data.config import DataConfig
from cloverleaf.errors import DataError
from cloverleaf.evaluation.coco import CocoEvaluator, CocoMetrics
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.ops.letterbox import unletterbox_boxes
from cloverleaf.ops.nms import batched_nms
from cloverleaf.predict.device import resolve_device, synchronize
from cloverleaf.structures import Batch

if TYPE_CHECKING:
    from cloverleaf.data.index import DetectionIndex
    from cloverleaf.models.detector import Detector

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Speed:
    """Mean wall-clock milliseconds per image.

    Attributes:
        load: waiting for the loader (its workers read and letterbox while the model runs, so this is what is left).
        preprocess: copying to the device, conversion to float and scaling.
        inference: the network and the decoding of its output.
        postprocess: NMS and the way back to pixels of the original image.
        images: how many images were timed.
    """

    load: float
    preprocess: float
    inference: float
    postprocess: float
    images: int

    def to_json(self) -> dict[str, float | int]:
        """Plain values, in milliseconds per image."""
        return {
            "load_ms": round(self.load, 3),
            "preprocess_ms": round(self.preprocess, 3),
            "inference_ms": round(self.inference, 3),
            "postprocess_ms": round(self.postprocess, 3),
            "images": self.images,
        }


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """One evaluation.

    Attributes:
        metrics: the COCO numbers, curves and confusion matrix.
        detections: everything that was found, as a table of COCO results.
        speed: where the time went.
        split: judged split.
        image_size: long side of the network input in pixels.
        config: confidence, NMS threshold and so on.
    """

    metrics: CocoMetrics
    detections: DetectionTable
    speed: Speed
    split: str
    image_size: int
    config: EvalConfig

    @property
    def rows(self) -> list[dict[str, Any]]:
        """COCO results rows."""
        return self.detections.to_rows()

    def to_json(self) -> dict[str, Any]:
        """Plain values without the detections and the curves; undefined numbers are null."""
        return {
            "split": self.split,
            "image_size": self.image_size,
            "protocol": {
                "confidence": self.config.confidence,
                "iou": self.config.iou,
                "multi_label": self.config.multi_label,
                "max_detections": self.config.max_detections,
            },
            **self.metrics.to_json(),
            "speed": self.speed.to_json(),
        }


def evaluate(
    weights_or_model: str | Path | Detector,
    data: str | Path | DetectionIndex,
    split: str = "val",
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    config: EvalConfig | None = None,
    device: str | torch.device = "auto",
    workers: int = -1,
    precision: Precision = "fp32",
    fuse: bool = True,
) -> EvaluationResult:
    """Judge weights on a split of a dataset by the published protocol (README and test script of YOLOv7).

    Args:
        weights_or_model: a weights file, or a detector in memory (not changed).
        data: a ``data.yaml``, a COCO JSON, a folder, or an index that is already open.
        split: which part of the dataset.
        image_size: long side of the network input; None takes the one the weights were trained with;
            rounded up to a multiple of the model's stride.
        batch_size: images per step.
        config: thresholds; None takes the published ones.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        workers: loader processes, -1 to choose from the CPUs.
        precision: of the network; boxes and scores are always float32.
        fuse: fold the training form into the deploy form first (the result is the same, only faster).

    Raises:
        CheckpointError: the weights cannot be read.
        DataError: the dataset cannot be read, or its classes are not those of the weights.
    """
    from cloverleaf.data.source import open_index
    from cloverleaf.predict.model import class_names_of, fit_image_size, image_size_of, prepare_model

    target = resolve_device(device)
    model = prepare_model(weights_or_model, target, fuse=fuse)
    index = open_index(data, split) if isinstance(data, str | Path) else data
    category_ids = match_classes(class_names_of(model), index.names, index.category_ids)
    size = fit_image_size(image_size, model.max_stride) if image_size else image_size_of(model)
    settings = DataConfig(image_size=size, batch_size=batch_size, workers=workers)
    return evaluate_model(
        model, index, data=settings, config=config, device=target, precision=precision, category_ids=category_ids
    )


def match_classes(
    model_names: Sequence[str] | None, data_names: Sequence[str], category_ids: Sequence[int]
) -> tuple[int, ...]:
    """Category id of the dataset for every label of the model, matched by name.

    Args:
        model_names: classes of the model in the order of its labels; None where it has no names (then the order of the
            dataset is taken).
        data_names: classes of the dataset.
        category_ids: their ids.

    Raises:
        DataError: the two sets of names differ.
    """
    if model_names is None or list(model_names) == list(data_names):
        return tuple(category_ids)
    if sorted(model_names) != sorted(data_names) or len(set(model_names)) != len(model_names):
        missing = sorted(set(data_names) - set(model_names))
        surplus = sorted(set(model_names) - set(data_names))
        raise DataError(
            what="the classes of the weights are not those of the dataset",
            why=f"{len(missing)} only in the dataset {missing[:5]}, {len(surplus)} only in the weights {surplus[:5]}",
            fix="judge weights on a dataset with the same class names, or rename its classes",
        )
    by_name = dict(zip(data_names, category_ids, strict=True))
    return tuple(by_name[name] for name in model_names)


def evaluate_model(
    model: Detector,
    index: DetectionIndex,
    *,
    data: DataConfig,
    config: EvalConfig | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "fp32",
    category_ids: Sequence[int] | None = None,
    loader: Iterable[Batch] | None = None,
    evaluator: CocoEvaluator | None = None,
) -> EvaluationResult:
    """Judge a model in memory.

    Args:
        model: the detector; it is moved to ``device``, put into evaluation mode and back.
        index: the images and the ground truth.
        data: image size, batch size, workers, rectangular batches.
        config: thresholds; None takes the published ones.
        device: where the model runs.
        batch_size, workers: in place of those of ``data``.
        precision: of the network.
        category_ids: category of the dataset per label of the model; None when the labels are the dataset's.
        loader, evaluator: made by an earlier call's caller from the same index, to spare making them again.

    Raises:
        DataError: the model has another number of classes than the dataset.
    """
    config = config or EvalConfig()
    target = resolve_device(device)
    categories = tuple(index.category_ids if category_ids is None else category_ids)
    if model.num_classes != len(categories):
        raise DataError(
            what="the model does not fit the dataset",
            why=f"it knows {model.num_classes} classes, the dataset has {len(categories)}",
            fix="judge it on the dataset it was made for",
        )
    if loader is None:
        from cloverleaf.data.loader import build_eval_loader

        settings = data if workers is None else replace(data, workers=workers)
        loader = build_eval_loader(index, settings, stride=model.max_stride, batch_size=batch_size or data.batch_size)
    model.to(target)
    detections, speed = detect_batches(model, loader, config, categories, target, precision)
    evaluator = evaluator or CocoEvaluator(index.to_coco())
    evaluator.reset()
    evaluator.update(detections)
    return EvaluationResult(evaluator.compute(), detections, speed, index.split, data.image_size, config)


def detect_batches(
    model: Detector,
    loader: Iterable[Batch],
    config: EvalConfig,
    category_ids: Sequence[int],
    device: torch.device,
    precision: Precision = "fp32",
) -> tuple[DetectionTable, Speed]:
    """Detections of every batch, in pixels of the original images, and the time they took."""
    categories = np.array(category_ids, np.int64)
    tables: list[DetectionTable] = []
    spent = np.zeros(4)
    images = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            mark = time.perf_counter()
            for batch in loader:
                clock = [mark, time.perf_counter()]
                pixels = to_input(batch.images, device)
                synchronize(device)
                clock.append(time.perf_counter())
                boxes, scores = infer(model, pixels, precision)
                synchronize(device)
                clock.append(time.perf_counter())
                tables.append(_postprocess(boxes, scores, batch, config, categories))
                mark = time.perf_counter()
                spent += np.diff([*clock, mark])
                images += len(batch)
    finally:
        model.train(was_training)
    load, preprocess, inference, postprocess = (1000 * spent / max(images, 1)).tolist()
    return DetectionTable.concatenate(tables), Speed(load, preprocess, inference, postprocess, images)


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """``(B, 3, H, W)`` uint8 -> float32 in [0, 1], channels_last, on ``device``."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)


def infer(model: Detector, pixels: Tensor, precision: Precision = "fp32") -> tuple[Tensor, Tensor]:
    """Boxes ``(B, N, 4)`` in input pixels and scores ``(B, N, K)``, both float32."""
    with torch.autocast(pixels.device.type, dtype=_AUTOCAST[precision], enabled=precision != "fp32"):
        raw = model(pixels)
    boxes, scores = model.decode(raw, (pixels.shape[2], pixels.shape[3]))
    return boxes.float(), scores.float()


def _postprocess(
    boxes: Tensor, scores: Tensor, batch: Batch, config: EvalConfig, categories: np.ndarray
) -> DetectionTable:
    """NMS, and the results of one batch mapped to the original images."""
    kept = batched_nms(
        boxes,
        scores,
        confidence=config.confidence,
        iou=config.iou,
        multi_label=config.multi_label,
        max_detections=config.max_detections,
    )
    letterboxes, sizes = batch.letterbox.tolist(), batch.original_hw.tolist()
    counts = [len(labels) for _, _, labels in kept]
    original = [
        unletterbox_boxes(found.cpu().numpy(), tuple(box), tuple(size))
        for (found, _, _), box, size in zip(kept, letterboxes, sizes, strict=True)
    ]
    return DetectionTable.from_xyxy(
        np.repeat(batch.image_ids.numpy(), counts),
        categories[torch.cat([labels for _, _, labels in kept]).cpu().numpy()],
        np.concatenate(original),
        torch.cat([values for _, values, _ in kept]).cpu().numpy(),
    )
