"""Run a detector over batches: pixels in, a table of detections and the time it took out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.ops.letterbox import unletterbox_boxes
from cloverleaf.ops.nms import batched_nms
from cloverleaf.predict.device import synchronize
from cloverleaf.structures import Batch

if TYPE_CHECKING:
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


def detect_batches(
    model: Detector,
    loader: Iterable[Batch],
    config: EvalConfig,
    category_ids: Sequence[int | None],
    device: torch.device,
    precision: Precision = "fp32",
) -> tuple[DetectionTable, Speed]:
    """Detections of every batch, in pixels of the original images, and the time they took.

    Args:
        model: the detector, on ``device``; its mode is restored.
        loader: batches of letterboxed images.
        config: thresholds.
        category_ids: category of every label; None for labels that shall not be detected.
        device: where the model is.
        precision: of the network.
    """
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
                tables.append(_postprocess(boxes, scores, batch, config, category_ids))
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
    boxes: Tensor, scores: Tensor, batch: Batch, config: EvalConfig, category_ids: Sequence[int | None]
) -> DetectionTable:
    """NMS, and the results of one batch mapped to the original images."""
    wanted = [label for label, category in enumerate(category_ids) if category is not None]
    categories = np.array([-1 if category is None else category for category in category_ids], np.int64)
    kept = batched_nms(
        boxes,
        scores,
        confidence=config.confidence,
        iou=config.iou,
        multi_label=config.multi_label,
        classes=None if len(wanted) == len(category_ids) else wanted,
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
