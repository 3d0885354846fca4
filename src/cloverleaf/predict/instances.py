"""Instances with masks: from a model's output to detections in pixels of the original image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import ConfigError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.ops.letterbox import LetterboxTransform
from cloverleaf.ops.masks import compressed, paste_masks, unletterbox
from cloverleaf.predict.detect import Speed, run_batches
from cloverleaf.predict.engine import Engine, EngineInfo, segmenting
from cloverleaf.structures import Batch, Instances, Mask

CONFIDENCE = 0.5
"""Smallest score that is reported where nothing else is asked for."""

Placed = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64], tuple[Mask, ...]]


def place(found: Instances, letterbox: LetterboxTransform, original_hw: tuple[int, int]) -> Placed:
    """Boxes ``(n, 4)`` xyxy cut to the image, scores, labels and masks, in pixels of the original image.

    Instances of which nothing lies in the image are left out.
    """
    height, width = original_hw
    boxes = unletterbox(found.boxes_xyxy.float().cpu().numpy(), letterbox)
    masks = paste_masks(found.masks.float().cpu().numpy(), boxes, original_hw)
    cut = boxes.clip(0, [width, height, width, height]).astype(np.float32)
    inside = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    scores, labels = found.scores.float().cpu().numpy(), found.labels.cpu().numpy().astype(np.int64)
    kept = np.flatnonzero(inside).tolist()
    return cut[inside], scores[inside], labels[inside], tuple(masks[k] for k in kept)


def instance_batches(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None]
) -> tuple[DetectionTable, Speed]:
    """Instances of every batch as COCO results with masks, and the time they took.

    Args:
        engine: the model, ready to run.
        loader: batches of letterboxed images.
        config: the smallest score and the most detections per image; suppression is the model's own.
        category_ids: category of every label; None for labels that shall not be found.
    """
    model = segmenting(engine)
    categories = np.array([-1 if category is None else category for category in category_ids], np.int64)
    tables: list[DetectionTable] = []

    def take(output: list[Instances], batch: Batch) -> None:
        for found, image_id, letterbox, size in zip(
            output, batch.image_ids.tolist(), batch.letterbox.tolist(), batch.original_hw.tolist(), strict=True
        ):
            boxes, scores, labels, masks = place(found, tuple(letterbox), (size[0], size[1]))
            known = np.flatnonzero(categories[labels] >= 0) if len(labels) else np.zeros(0, np.intp)
            rows: list[dict[str, Any]] = [compressed(masks[k], (size[0], size[1])) for k in known.tolist()]
            ids = np.full(len(known), image_id, np.int64)
            tables.append(DetectionTable.from_xyxy(ids, categories[labels[known]], boxes[known], scores[known], rows))

    def infer(pixels: Any) -> list[Instances]:
        return model.instances(pixels, confidence=config.confidence, max_detections=config.max_detections)

    speed = run_batches(engine, loader, infer, take)
    return DetectionTable.concatenate(tables), speed


def check_most(info: EngineInfo, max_detections: int | None) -> None:
    """Refuse more detections per image than the model gives.

    Raises:
        ConfigError: more are asked for.
    """
    if max_detections is not None and info.most_detections is not None and max_detections > info.most_detections:
        raise ConfigError(
            f"{info.name} cannot give {max_detections} detections an image",
            f"its head gives at most {info.most_detections}",
            "train with a larger --set model.head.detections=N, or ask for fewer",
        )


def check_detections(info: EngineInfo, config: EvalConfig) -> None:
    """Refuse limits on the number of detections that exclude each other.

    Raises:
        ConfigError: more shall count than are kept, or than the model gives.
    """
    most = min(config.max_detections, info.most_detections or config.max_detections)
    if config.ap_detections > most:
        own = most < config.max_detections
        raise ConfigError(
            f"{config.ap_detections} detections cannot count for average precision",
            f"the head of {info.name} gives at most {most} an image" if own else f"{most} are kept per image",
            "set head.detections of the model, evaluation.max_detections and evaluation.ap_detections to one number",
        )
