"""From a user's words to what tracking needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloverleaf.errors import ConfigError
from cloverleaf.predict.engine import open_engine
from cloverleaf.predict.predictor import Predictor
from cloverleaf.tracking.options import APPEARANCE

WEAKEST = 0.1
"""Score of the weakest detections that may continue a track, as in ByteTrack (arXiv 2110.06864)."""


def parse_appearance(text: str) -> tuple[float, bool]:
    """``auto``, ``off`` or a number -> the weight of appearance, and whether the model must give embeddings.

    Raises:
        ConfigError: something else.
    """
    if text in ("auto", "off"):
        return (APPEARANCE if text == "auto" else 0.0), False
    try:
        weight = float(text)
    except ValueError as error:
        raise ConfigError(f"--appearance {text} is not known", "wanted auto, off or 0 to 1", "change it") from error
    return weight, weight > 0


def tracking_predictor(
    weights: str | Path,
    *,
    confidence: float | None = None,
    iou: float | None = None,
    image_size: int | None = None,
    device: str = "auto",
    classes: Iterable[str | int] | None = None,
    across_classes: bool = False,
) -> Predictor:
    """A predictor that reports weak detections too.

    Args:
        weights, iou, image_size, device, classes: as for `Predictor`.
        across_classes: an object is one whatever its class: boxes suppress those of other classes too, unless the model
            suppresses its boxes itself (a file with NMS inside, or one that finds masks).
        confidence: as for `Predictor`; None takes 0.1, or more where a file that suppresses itself gives no less.

    Raises:
        CheckpointError, ConfigError: as for `Predictor`.
    """
    engine = open_engine(weights, device=device)
    if confidence is None:
        inside = engine.info.suppression
        confidence = WEAKEST if inside is None else max(WEAKEST, inside.confidence)
    agnostic = across_classes and engine.info.suppression is None and engine.info.task in ("detect", "multi")
    return Predictor(
        engine, confidence=confidence, iou=iou, image_size=image_size, classes=classes, class_agnostic=agnostic
    )  # fmt: skip
