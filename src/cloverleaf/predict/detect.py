"""Run an engine over batches: pixels in, a table of detections and the time it took out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cloverleaf.deploy.suppression import Suppression
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.ops.letterbox import unletterbox_boxes
from cloverleaf.predict.device import synchronize
from cloverleaf.predict.engine import Dense, Engine, Found
from cloverleaf.predict.selection import select, suppression_of
from cloverleaf.structures import Batch

Output = TypeVar("Output")


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
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None]
) -> tuple[DetectionTable, Speed]:
    """Detections of every batch, in pixels of the original images, and the time they took.

    Args:
        engine: the model, ready to run.
        loader: batches of letterboxed images.
        config: thresholds.
        category_ids: category of every label; None for labels that shall not be detected.

    Raises:
        ConfigError: the model has a suppression of its own that cannot be turned into these thresholds.
    """
    suppression = suppression_of(engine.info, config)
    tables: list[DetectionTable] = []

    def take(output: Dense | Found, batch: Batch) -> None:
        tables.append(to_table(output, batch, suppression, config.multi_label, category_ids))

    speed = run_batches(engine, loader, engine.infer, take)
    return DetectionTable.concatenate(tables), speed


def run_batches(
    engine: Engine, loader: Iterable[Batch], infer: Callable[[Tensor], Output], take: Callable[[Output, Batch], None]
) -> Speed:
    """Run a model over batches and take the time of every step.

    Args:
        engine: whose device is used.
        loader: batches of letterboxed images.
        infer: from pixels ``(B, 3, H, W)`` in [0, 1] on the device to an output.
        take: does with the output what is to be done.
    """
    spent = np.zeros(4)
    images = 0
    with torch.inference_mode():
        mark = time.perf_counter()
        for batch in loader:
            clock = [mark, time.perf_counter()]
            pixels = to_input(batch.images, engine.device)
            synchronize(engine.device)
            clock.append(time.perf_counter())
            output = infer(pixels)
            synchronize(engine.device)
            clock.append(time.perf_counter())
            take(output, batch)
            mark = time.perf_counter()
            spent += np.diff([*clock, mark])
            images += len(batch)
    load, preprocess, inference, postprocess = (1000 * spent / max(images, 1)).tolist()
    return Speed(load, preprocess, inference, postprocess, images)


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """``(B, 3, H, W)`` uint8 -> float32 in [0, 1], channels_last, on ``device``."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)


def to_table(
    output: Dense | Found,
    batch: Batch,
    suppression: Suppression,
    multi_label: bool,
    category_ids: Sequence[int | None],
) -> DetectionTable:
    """Suppression, and the results of one batch mapped to the original images.

    Args:
        output: what an engine gave.
        batch: its images.
        suppression, multi_label: as in `select`.
        category_ids: category of every label; None for labels that shall not be detected.
    """
    wanted = [label for label, category in enumerate(category_ids) if category is not None]
    categories = np.array([-1 if category is None else category for category in category_ids], np.int64)
    classes = None if len(wanted) == len(category_ids) else wanted
    kept = select(output, suppression, multi_label=multi_label, classes=classes)
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
