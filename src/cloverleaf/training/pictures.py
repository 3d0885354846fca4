"""The pictures of a finished run: curves, label statistics, predictions beside the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cloverleaf.data.image_io import read_image
from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import ImageError
from cloverleaf.models.detector import Detector
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.predict.predictor import Predictor
from cloverleaf.reports import figures
from cloverleaf.reports.pictures import TruthAndPrediction, draw_predictions_beside_truth
from cloverleaf.structures import Detections
from cloverleaf.training.callbacks.record import Row
from cloverleaf.training.config import TrainConfig

SHOWN_IMAGES = 6


def draw_run(
    config: TrainConfig,
    model: Detector,
    train: DetectionIndex,
    val: DetectionIndex,
    rows: list[Row],
    judged: EvaluationResult,
) -> None:
    """Write every picture of the run into its `pictures` folder."""
    folder = config.output_dir / "pictures"
    figures.plot_losses_and_ap(rows, folder / "training.png")
    figures.plot_labels(train, folder / "labels.png")
    curves, names = judged.metrics.curves, val.names
    figures.plot_pr_curves(
        curves.recall_grid, curves.precision_at_recall, names, folder / "precision_recall.png",
        ap50=[one.ap50 for one in judged.metrics.per_class],
    )  # fmt: skip
    figures.plot_confidence_curves(
        curves.confidence, curves.precision, curves.recall, curves.f1, folder / "confidence.png"
    )
    figures.plot_confusion(judged.metrics.confusion.counts, names, folder / "confusion.png")
    confidence = judged.metrics.confidence
    draw_predictions_beside_truth(
        beside_truth(model, val, config, confidence if np.isfinite(confidence) else 0.25), folder / "predictions.png"
    )


def beside_truth(
    model: Detector, index: DetectionIndex, config: TrainConfig, confidence: float
) -> list[TruthAndPrediction]:
    """Some images, evenly spread over the split, with their objects and what the model finds in them."""
    predictor = Predictor(model, confidence=confidence, image_size=config.data.image_size)
    items = []
    for i in np.linspace(0, len(index) - 1, min(SHOWN_IMAGES, len(index))).round().astype(int).tolist():
        try:
            image = read_image(index.image_path(i))
        except ImageError:
            continue  # the evaluation has already named it
        objects = index.objects(i)
        truth = Detections(
            objects.boxes_xyxy.astype(np.float32), np.ones(len(objects.labels), np.float32),
            objects.labels.astype(np.int64), index.names, image.shape[:2],
        )  # fmt: skip
        items.append(TruthAndPrediction(image, truth, predictor(image)))
    return items
