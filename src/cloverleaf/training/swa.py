"""The end of stochastic weight averaging: from summed weights to a weights file that is judged (arXiv 1803.05407)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cloverleaf.data.index import DetectionIndex
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.predict.evaluate import EvaluationResult, evaluate_model
from cloverleaf.training.callbacks.averaging import SwaCallback
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.multi import as_learned
from cloverleaf.training.recalibrate import augmentation_of, recalibrate
from cloverleaf.weights.format import load, save


@dataclass(frozen=True, slots=True)
class SwaResult:
    """Averaged weights of a run.

    Attributes:
        path: their file.
        epochs: whose weights are in them, counted from 1.
        images: how many gave the BatchNorm statistics; 0 where the model has no BatchNorm.
        judged: the evaluation on the validation split.
    """

    path: Path
    epochs: tuple[int, ...]
    images: int
    judged: EvaluationResult


def finish_swa(
    swa: SwaCallback, config: TrainConfig, train: DetectionIndex, val: DetectionIndex, *, device: str
) -> SwaResult | None:
    """Save the mean as ``weights/swa.safetensors``, with BatchNorm recomputed over training images, and judge it.

    Model and facts are those of ``weights/last.safetensors``. None where no epoch was averaged, because the run ended
    early.
    """
    if not swa.epochs:
        return None
    folder = config.output_dir / "weights"
    model = load(folder / "last.safetensors")
    model.load_state_dict(swa.average.mean())
    augment = augmentation_of(config)
    images = recalibrate(
        model, train, config.data, augment=augment, images=config.swa.images, seed=config.seed, device=device
    )
    once = replace(config.data, cache="none")
    judged = evaluate_model(model, val, data=once, config=config.evaluation, device=device)
    judged = as_learned(judged, model, config)
    numbers = {name: value for name, value in judged.metrics.to_dict().items() if value is not None}
    metadata = replace(
        model.metadata or WeightsMetadata(),
        metrics={"epochs_averaged": len(swa.epochs), **numbers},
        statistics=f"recomputed on {images} training images of {config.data.source}, augmented as in training",
    )
    path = folder / "swa.safetensors"
    save(model, path, metadata=metadata)
    return SwaResult(path, tuple(swa.epochs), images, judged)
