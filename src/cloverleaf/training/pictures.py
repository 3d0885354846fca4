"""The pictures of a finished run: curves, label statistics, predictions beside the truth."""

from __future__ import annotations

import numpy as np

from cloverleaf.data.image_io import read_image
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.stats_plots import draw_overview
from cloverleaf.errors import ImageError
from cloverleaf.evaluation.coco import CocoMetrics
from cloverleaf.models.detector import Detector
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.predict.evaluation_files import draw_evaluation
from cloverleaf.predict.predictor import Predictor
from cloverleaf.reports import figures
from cloverleaf.reports.pictures import Comparison, draw_predictions_beside_truth
from cloverleaf.training.callbacks.record import Row
from cloverleaf.training.config import TrainConfig

SHOWN_IMAGES = 6
FALLBACK_CONFIDENCE = 0.25  # where no threshold is best, because nothing was found
LEAST_CONFIDENCE = 0.05  # a model that has learned little is best at a threshold that covers the pictures with boxes


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
    figures.plot_losses_and_ap(rows, folder / "training.png")
    draw_overview({config.data.train_split: train}, train.names, folder / "labels.png")
    draw_evaluation(judged.metrics, folder)
    assert isinstance(judged.metrics, CocoMetrics)
    best = judged.metrics.confidence
    confidence = max(best, LEAST_CONFIDENCE) if np.isfinite(best) else FALLBACK_CONFIDENCE
    predictor = Predictor(model, confidence=confidence, image_size=config.data.image_size, device=device)
    draw_predictions_beside_truth(compare(predictor, val), val.names, folder / "predictions.png")


def compare(predictor: Predictor, index: DetectionIndex) -> list[Comparison]:
    """Some images, evenly spread over the split, with their objects and what the predictor finds in them."""
    items = []
    for i in np.linspace(0, len(index) - 1, min(SHOWN_IMAGES, len(index))).round().astype(int).tolist():
        try:
            image = read_image(index.image_path(i))
        except ImageError:
            continue  # the evaluation has already named it
        objects = index.objects(i)
        title = index.image_path(i).name
        items.append(Comparison(image, objects.boxes_xyxy, objects.labels, predictor(image), title))
    return items
