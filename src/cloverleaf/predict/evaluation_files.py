"""What an evaluation leaves on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cloverleaf import atomic
from cloverleaf.errors import ImageError
from cloverleaf.evaluation.classification import ClassMetrics
from cloverleaf.evaluation.coco import CocoMetrics
from cloverleaf.evaluation.multi import Example, MultiMetrics
from cloverleaf.evaluation.semantic import SemanticMetrics
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.predict.judges import Metrics

if TYPE_CHECKING:
    from cloverleaf.reports.multi import Ranking


def write_evaluation(result: EvaluationResult, folder: Path, *, plots: bool = True) -> None:
    """Write ``metrics.json``, ``predictions.json`` (COCO results, or the classes of whole images; not for pixels) and
    the plots into a folder.

    Args:
        result: the evaluation.
        folder: where to.
        plots: also draw what `draw_evaluation` draws.
    """
    atomic.write_json(folder / "metrics.json", result.to_json())
    if result.task != "semantic":
        atomic.write_json(folder / "predictions.json", result.rows)
    if plots:
        draw_evaluation(result.metrics, folder)


def draw_evaluation(metrics: Metrics, folder: Path) -> None:
    """Draw what there is to be seen: of boxes ``precision_recall.png``, ``confidence.png`` and ``confusion.png`` (of
    instances too), of tags ``tags.png``, of embeddings ``retrieval.png`` and, with examples, ``retrieved.png``, of
    pixels ``pixel_confusion.png``, of whole images ``class_confusion.png``; nothing where there are no classes."""
    if isinstance(metrics, ClassMetrics):
        from cloverleaf.reports.matrices import plot_class_confusion

        return plot_class_confusion(
            metrics.counts, metrics.class_names, metrics.called_names, folder / "class_confusion.png"
        )
    if isinstance(metrics, SemanticMetrics):
        from cloverleaf.reports.matrices import plot_pixel_confusion

        return plot_pixel_confusion(metrics.counts, metrics.class_names, folder / "pixel_confusion.png")
    if isinstance(metrics, MultiMetrics):
        _draw_further(metrics, folder)
    return _draw_boxes(metrics if isinstance(metrics, CocoMetrics) else metrics.boxes, folder)


def _draw_further(metrics: MultiMetrics, folder: Path) -> None:
    """Tags and retrieval, as far as they were judged."""
    from cloverleaf.reports.multi import draw_rankings, plot_retrieval, plot_tag_precisions

    if (tags := metrics.tags) is not None:
        plot_tag_precisions(tags.names, tags.ap, tags.f1, tags.chance, folder / "tags.png")
    found = metrics.retrieval
    if found is None or not found.all.queries:
        return
    parts = {"all": found.all, "seen in training": found.seen, "never seen": found.unseen}
    shown = {f"{name} ({part.queries})": (part.values, part.chance) for name, part in parts.items() if part}
    plot_retrieval(shown, folder / "retrieval.png")
    draw_rankings([ranking for example in metrics.examples if (ranking := _ranking(example))], folder / "retrieved.png")


def _ranking(example: Example) -> Ranking | None:
    """The pictures of a query; None where one cannot be read: it was judged as a grey one, with a warning."""
    from cloverleaf.data.image_io import read_image
    from cloverleaf.reports.multi import Ranking, crop_around

    try:
        query, *nearest = (
            crop_around(read_image(place.path), place.box_xyxy) for place in (example.query, *example.nearest)
        )
    except ImageError:
        return None
    return Ranking(query, nearest, example.similarity, example.right)


def _draw_boxes(metrics: CocoMetrics, folder: Path) -> None:
    if not metrics.per_class:
        return
    import numpy as np

    from cloverleaf.reports.figures import plot_confidence_curves, plot_pr_curves
    from cloverleaf.reports.matrices import plot_confusion

    curves, names = metrics.curves, metrics.confusion.class_names
    ap50 = np.array([row.ap50 for row in metrics.per_class])
    plot_pr_curves(curves.recall_grid, curves.precision_at_recall, names, folder / "precision_recall.png", ap50=ap50)
    plot_confidence_curves(
        curves.confidence,
        curves.precision,
        curves.recall,
        curves.f1,
        names,
        folder / "confidence.png",
        best_confidence=None if curves.best is None else curves.best_confidence,
    )
    plot_confusion(metrics.confusion.counts, names, folder / "confusion.png")
