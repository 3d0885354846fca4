"""What an evaluation leaves on disk."""

from __future__ import annotations

from pathlib import Path

from cloverleaf import atomic
from cloverleaf.evaluation.classification import ClassMetrics
from cloverleaf.evaluation.coco import CocoMetrics
from cloverleaf.evaluation.instances import InstanceMetrics
from cloverleaf.evaluation.semantic import SemanticMetrics
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.predict.judges import Metrics


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
    instances too), of pixels ``pixel_confusion.png``, of whole images ``class_confusion.png``; nothing where there are
    no classes."""
    if isinstance(metrics, ClassMetrics):
        from cloverleaf.reports.figures import plot_class_confusion

        return plot_class_confusion(
            metrics.counts, metrics.class_names, metrics.called_names, folder / "class_confusion.png"
        )
    if isinstance(metrics, SemanticMetrics):
        from cloverleaf.reports.figures import plot_pixel_confusion

        return plot_pixel_confusion(metrics.counts, metrics.class_names, folder / "pixel_confusion.png")
    return _draw_boxes(metrics.boxes if isinstance(metrics, InstanceMetrics) else metrics, folder)


def _draw_boxes(metrics: CocoMetrics, folder: Path) -> None:
    if not metrics.per_class:
        return
    import numpy as np

    from cloverleaf.reports.figures import plot_confidence_curves, plot_confusion, plot_pr_curves

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
