"""What an evaluation leaves on disk."""

from __future__ import annotations

from pathlib import Path

from cloverleaf import atomic
from cloverleaf.evaluation.coco import CocoMetrics
from cloverleaf.predict.evaluate import EvaluationResult


def write_evaluation(result: EvaluationResult, folder: Path, *, plots: bool = True) -> None:
    """Write ``metrics.json``, ``predictions.json`` (COCO results) and the plots into an existing folder.

    Args:
        result: the evaluation.
        folder: where to.
        plots: also draw what `draw_evaluation` draws.
    """
    atomic.write_json(folder / "metrics.json", result.to_json())
    atomic.write_json(folder / "predictions.json", result.rows)
    if plots:
        draw_evaluation(result.metrics, folder)


def draw_evaluation(metrics: CocoMetrics, folder: Path) -> None:
    """Draw ``precision_recall.png``, ``confidence.png`` and ``confusion.png``; nothing where there are no classes."""
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
