"""How each task is judged: what the ground truth is, and what is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloverleaf.data.class_loader import build_class_eval_loader
from cloverleaf.data.config import DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.label_map import label_map
from cloverleaf.data.loader import build_eval_loader
from cloverleaf.data.require_classes import require_class_folders, require_objects
from cloverleaf.data.require_masks import require_masks
from cloverleaf.evaluation.classification import ClassEvaluator, ClassMetrics
from cloverleaf.evaluation.coco import CocoEvaluator, CocoMetrics
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.instances import InstanceEvaluator, InstanceMetrics
from cloverleaf.evaluation.multi import MultiMetrics
from cloverleaf.evaluation.semantic import SemanticEvaluator, SemanticMetrics
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.evaluation.tags import THRESHOLD
from cloverleaf.models.spec import Task
from cloverleaf.predict.classify import classify_batches
from cloverleaf.predict.detect import Speed, detect_batches
from cloverleaf.predict.engine import Engine
from cloverleaf.predict.instances import check_detections, instance_batches
from cloverleaf.predict.multi import judge_embeddings, judge_tags, several_batches, tag_columns
from cloverleaf.predict.semantic import segment_batches
from cloverleaf.structures import Batch

Metrics = CocoMetrics | InstanceMetrics | SemanticMetrics | ClassMetrics | MultiMetrics
Truth = Any  # what the judge of a task keeps of a ground truth, to judge by it again and again
Judged = tuple[Metrics, DetectionTable, Speed]

BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Judge:
    """The judge of one task.

    Attributes:
        truth: of an index, made once for any number of judgements.
        judge: runs a model over batches of the index's images and compares. Takes the engine, the batches, the
            thresholds, the dataset's category of each label of the model (None for a class that it does not have), and
            the truth.
        classes: how many classes a model for K classes of objects has.
        protocol: what is to be said of the thresholds beside the numbers.
        loader: batches of an index's images as the task sees them; takes the index, the data options and the stride.
    """

    truth: Callable[[DetectionIndex, DataConfig, EvalConfig], Truth]
    judge: Callable[[Engine, Iterable[Batch], EvalConfig, Sequence[int | None], Truth], Judged]
    classes: Callable[[int], int]
    protocol: Callable[[EvalConfig], dict[str, Any]]
    loader: Callable[..., Iterable[Batch]] = build_eval_loader


def _most(config: EvalConfig) -> tuple[int, int, int]:
    return 1, 10, config.ap_detections


def _box_truth(index: DetectionIndex, data: DataConfig, config: EvalConfig) -> CocoEvaluator:
    require_objects(index)
    return CocoEvaluator(index.to_coco(), max_detections=_most(config))


def _judge_boxes(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None], truth: Truth
) -> Judged:
    detections, speed = detect_batches(engine, loader, config, category_ids)
    truth.reset()
    truth.update(detections)
    return truth.compute(), detections, speed


def _instance_truth(index: DetectionIndex, data: DataConfig, config: EvalConfig) -> InstanceEvaluator:
    require_objects(index)
    require_masks(index, boxes_as_masks=data.boxes_as_masks)
    return InstanceEvaluator(index.to_coco(), max_detections=_most(config))


def _judge_instances(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None], truth: Truth
) -> Judged:
    check_detections(engine.info, config)
    detections, speed = instance_batches(engine, loader, config, category_ids)
    truth.reset()
    truth.update(detections)
    return truth.compute(), detections, speed


@dataclass(frozen=True, slots=True)
class _PixelTruth:
    """Label maps are drawn when they are needed: those of a whole dataset do not fit into memory."""

    index: DetectionIndex
    rows: Mapping[int, int]
    boxes_as_masks: bool
    evaluator: SemanticEvaluator


def _pixel_truth(index: DetectionIndex, data: DataConfig, config: EvalConfig) -> _PixelTruth:
    require_objects(index)
    require_masks(index, boxes_as_masks=data.boxes_as_masks)
    rows = {int(image_id): row for row, image_id in enumerate(index.image_ids.tolist())}
    return _PixelTruth(index, rows, data.boxes_as_masks, SemanticEvaluator((BACKGROUND, *index.names)))


def _judge_pixels(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None], truth: Truth
) -> Judged:
    """What is called a class that the dataset does not have counts as background."""
    labels = {category: label for label, category in enumerate(truth.index.category_ids)}
    own = [0, *(0 if category is None else labels[category] + 1 for category in category_ids)]
    table = np.array(own, np.uint8)
    truth.evaluator.reset()

    def take(image_id: int, called: Any) -> None:
        true = label_map(truth.index, truth.rows[image_id], boxes_as_masks=truth.boxes_as_masks)
        truth.evaluator.update(table[called], true)

    speed = segment_batches(engine, loader, take)
    return truth.evaluator.compute(), DetectionTable.empty(), speed


@dataclass(frozen=True, slots=True)
class _ClassTruth:
    """Which image has which row of the index; the classes come with the batches."""

    index: DetectionIndex
    rows: Mapping[int, int]


def _class_truth(index: DetectionIndex, data: DataConfig, config: EvalConfig) -> _ClassTruth:
    require_class_folders(index)
    return _ClassTruth(index, {int(image_id): row for row, image_id in enumerate(index.image_ids.tolist())})


def _judge_classes(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None], truth: Truth
) -> Judged:
    """A class that the dataset does not have may be called, and is wrong then."""
    index: DetectionIndex = truth.index
    known = engine.info.class_names or index.names
    label_of = {category: label for label, category in enumerate(category_ids)}
    order = [label_of[category] for category in index.category_ids]
    order += [label for label, category in enumerate(category_ids) if category is None]
    evaluator = ClassEvaluator(index.names, (*index.names, *(known[label] for label in order[len(index.names) :])))

    def take(probabilities: Any, true: Any, image_ids: list[int]) -> None:
        files = [str(index.image_path(truth.rows[i]).relative_to(index.source)) for i in image_ids]
        evaluator.update(probabilities[:, order], true, files)

    speed = classify_batches(engine, loader, take)
    return evaluator.compute(), DetectionTable.empty(), speed


@dataclass(frozen=True, slots=True)
class _MultiTruth:
    """Boxes in advance; tags and identities come with the batches."""

    index: DetectionIndex
    boxes: CocoEvaluator


def _multi_truth(index: DetectionIndex, data: DataConfig, config: EvalConfig) -> _MultiTruth:
    return _MultiTruth(index, _box_truth(index, data, config))


def _judge_several(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None], truth: Truth
) -> Judged:
    """What the dataset has no truth of is not judged."""
    index: DetectionIndex = truth.index
    if engine.info.num_tags and index.tag_names:
        tag_columns(engine.info, index)  # raises before the work
    detections, found, speed = several_batches(engine, loader, config, category_ids)
    truth.boxes.reset()
    truth.boxes.update(detections)
    retrieval, examples = judge_embeddings(engine.info, index, found)
    metrics = MultiMetrics(truth.boxes.compute(), judge_tags(engine.info, index, found), retrieval, examples)
    return metrics, detections, speed


def _box_protocol(config: EvalConfig) -> dict[str, Any]:
    return {
        "confidence": config.confidence,
        "iou": config.iou,
        "multi_label": config.multi_label,
        "max_detections": config.max_detections,
        "ap_detections": config.ap_detections,
    }


JUDGES: Mapping[Task, Judge] = {
    "detect": Judge(_box_truth, _judge_boxes, lambda classes: classes, _box_protocol),
    "instance": Judge(
        _instance_truth,
        _judge_instances,
        lambda classes: classes,
        lambda c: {
            "confidence": c.confidence,
            "max_detections": c.max_detections,
            "ap_detections": c.ap_detections,
        },
    ),
    "semantic": Judge(_pixel_truth, _judge_pixels, lambda classes: classes + 1, lambda c: {}),
    "classify": Judge(
        _class_truth, _judge_classes, lambda classes: classes, lambda c: {}, loader=build_class_eval_loader
    ),
    "multi": Judge(
        _multi_truth,
        _judge_several,
        lambda classes: classes,
        lambda c: {**_box_protocol(c), "tag_threshold": THRESHOLD},
    ),
}
