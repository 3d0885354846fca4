"""The pictures of a finished run: curves, label statistics, predictions beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cloverleaf.data.image_io import read_image
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.label_map import label_map
from cloverleaf.data.outline import decode
from cloverleaf.data.stats_plots import draw_overview
from cloverleaf.data.transforms.polygons import fill_mask
from cloverleaf.drawing.boxes import Pixels
from cloverleaf.errors import ImageError
from cloverleaf.evaluation.classification import ClassMetrics
from cloverleaf.evaluation.coco import CocoMetrics
from cloverleaf.evaluation.instances import InstanceMetrics
from cloverleaf.evaluation.multi import MultiMetrics
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import Task
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.predict.evaluation_files import draw_evaluation
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.sources import to_picture
from cloverleaf.reports import figures
from cloverleaf.reports.classes import ClassComparison, draw_classes_beside_truth
from cloverleaf.reports.pictures import (
    Comparison,
    PixelComparison,
    draw_pixels_beside_truth,
    draw_predictions_beside_truth,
)
from cloverleaf.structures import Mask
from cloverleaf.training.callbacks.record import Row
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.tasks import model_classes

SHOWN_IMAGES = 6
SHOWN_CLASSIFIED = 24  # of which half, if there are so many, were called wrongly
FALLBACK_CONFIDENCE = 0.25  # where no threshold is best, because nothing was found
LEAST_CONFIDENCE = 0.05  # a model that has learned little is best at a threshold that covers the pictures with boxes
MOST_CONFIDENCE = 0.99  # scores of a model that has only begun to learn may all be 1, and no score is above that


def draw_run(
    config: TrainConfig,
    model: Detector,
    train: DetectionIndex,
    val: DetectionIndex,
    rows: list[Row],
    judged: EvaluationResult,
    *,
    device: str,
) -> None:
    """Write every picture of the run into its `pictures` folder; the model looks at images on ``device``."""
    folder = config.output_dir / "pictures"
    ends = [(name, phase.until) for name, phase in config.phases.items()]
    figures.plot_losses_and_ap(rows, folder / "training.png", phases=ends)
    if config.task == "classify":
        figures.plot_class_counts({config.data.train_split: _counts(train), config.data.val_split: _counts(val)},
                                  train.names, folder / "labels.png")  # fmt: skip
    else:
        draw_overview({config.data.train_split: train}, train.names, folder / "labels.png")
    draw_evaluation(judged.metrics, folder)
    _BESIDE_TRUTH[config.task](config, model, val, judged, device)


def _objects(config: TrainConfig, model: Detector, val: DetectionIndex, judged: EvaluationResult, device: str) -> None:
    """What is found beside what is there: boxes, or masks where the model gives masks."""
    metrics = judged.metrics
    if isinstance(metrics, InstanceMetrics | MultiMetrics):
        metrics = metrics.boxes
    assert isinstance(metrics, CocoMetrics)
    best = metrics.confidence
    confidence = float(np.clip(best, LEAST_CONFIDENCE, MOST_CONFIDENCE)) if np.isfinite(best) else FALLBACK_CONFIDENCE
    most = config.evaluation.ap_detections if config.task == "instance" else None
    predictor = Predictor(
        model, confidence=confidence, image_size=config.data.image_size, device=device, max_detections=most
    )
    path = config.output_dir / "pictures" / "predictions.png"
    draw_predictions_beside_truth(compare(predictor, val), val.names, path)


def _pixels(config: TrainConfig, model: Detector, val: DetectionIndex, judged: EvaluationResult, device: str) -> None:
    """The classes that pixels were given beside those they have."""
    predictor = Predictor(model, image_size=config.data.image_size, device=device)
    items = []
    for i, image in _some_images(val):
        truth = label_map(val, i, boxes_as_masks=config.data.boxes_as_masks)
        [called] = predictor.segment([to_picture(image)])
        if truth.shape == image.shape[:2]:  # else the file was scaled since it was labelled
            items.append(PixelComparison(image, truth, called.labels, val.image_path(i).name))
    path = config.output_dir / "pictures" / "predictions.png"
    draw_pixels_beside_truth(items, model_classes(config.task, val.names), path)


def _classes(config: TrainConfig, model: Detector, val: DetectionIndex, judged: EvaluationResult, device: str) -> None:
    """The surest of what was called wrongly, then images evenly spread over the split."""
    metrics = judged.metrics
    assert isinstance(metrics, ClassMetrics)
    wrong = np.flatnonzero(metrics.best[:, 0] != metrics.true)
    wrong = wrong[np.argsort(-metrics.scores[wrong, 0], kind="stable")][: SHOWN_CLASSIFIED // 2].tolist()
    spread = np.linspace(0, metrics.images - 1, min(SHOWN_CLASSIFIED - len(wrong), metrics.images)).round().astype(int)
    items = []
    for i in dict.fromkeys([*wrong, *spread.tolist()]):
        try:
            image = read_image(val.source / metrics.files[i])
        except ImageError:  # it was judged as a grey one, with a warning
            continue
        called = zip(metrics.best[i].tolist(), metrics.scores[i].tolist(), strict=True)
        named = [(metrics.called_names[k], score) for k, score in called]
        items.append(ClassComparison(image, metrics.class_names[metrics.true[i]], named, metrics.files[i]))
    draw_classes_beside_truth(items, config.output_dir / "pictures" / "predictions.png")


def _counts(index: DetectionIndex) -> list[int]:
    """Images of every class."""
    return np.bincount(index.labels, minlength=len(index.names)).tolist()


_BESIDE_TRUTH: Mapping[Task, Callable[[TrainConfig, Detector, DetectionIndex, EvaluationResult, str], None]] = {
    "detect": _objects,
    "instance": _objects,
    "semantic": _pixels,
    "classify": _classes,
    "multi": _objects,
}


def compare(predictor: Predictor, index: DetectionIndex) -> list[Comparison]:
    """Some images, evenly spread over the split, with their objects and what the predictor finds in them."""
    items = []
    for i, image in _some_images(index):
        objects, title = index.objects(i), index.image_path(i).name
        [found] = predictor.detect([to_picture(image)])
        masks = None if found.masks is None else _true_masks(index, i)
        items.append(Comparison(image, objects.boxes_xyxy, objects.labels, found, title, masks))
    return items


def _some_images(index: DetectionIndex) -> Iterator[tuple[int, Pixels]]:
    """Rows of the index and their images, those that cannot be read left out: the evaluation has named them."""
    for i in np.linspace(0, len(index) - 1, min(SHOWN_IMAGES, len(index))).round().astype(int).tolist():
        try:
            image = read_image(index.image_path(i))
        except ImageError:
            continue
        yield i, image


def _true_masks(index: DetectionIndex, i: int) -> list[Mask]:
    """The masks of the objects of image ``i``; of one that has none its box."""
    size_hw, objects = index.size_hw(i), index.objects(i)
    masks = []
    for k, exact in enumerate(index.run_lengths(i)):
        rings = objects.polygons[k] if objects.polygons is not None else ()
        if not rings and exact is None:
            rings = (objects.boxes_xyxy[k][[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2).astype(np.float32),)
        pixels = decode(exact) if exact is not None else fill_mask(rings, size_hw)
        x1, y1 = np.floor(objects.boxes_xyxy[k, :2]).astype(int).tolist()
        x2, y2 = np.ceil(objects.boxes_xyxy[k, 2:]).astype(int).tolist()
        masks.append(Mask(x1, y1, pixels[y1:y2, x1:x2].astype(bool)))
    return masks
