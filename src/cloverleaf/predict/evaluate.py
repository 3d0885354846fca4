"""Judge what a detector finds in a dataset; training and `cloverleaf val` use the same code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cloverleaf.data.config import DataConfig
from cloverleaf.errors import DataError
from cloverleaf.evaluation.classification import ClassMetrics
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.models.spec import Task
from cloverleaf.predict.classes import match_classes
from cloverleaf.predict.detect import Speed
from cloverleaf.predict.device import resolve_device
from cloverleaf.predict.engine import Engine, EngineInfo, Precision, TorchEngine, open_engine
from cloverleaf.predict.judges import JUDGES, Metrics, Truth
from cloverleaf.predict.selection import evaluation_config
from cloverleaf.structures import Batch

if TYPE_CHECKING:
    from cloverleaf.data.index import DetectionIndex
    from cloverleaf.models.detector import Detector


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """One evaluation.

    Attributes:
        metrics: for boxes the COCO numbers, curves and confusion matrix; for instances also those of the masks; for
            pixels IoU and accuracy; for whole images accuracy.
        detections: everything that was found, as a table of COCO results, with masks for instances; empty for pixels
            and whole images.
        speed: where the time went.
        split: judged split.
        image_size: long side of the network input in pixels.
        config: confidence, NMS threshold and so on.
        ignored_classes: classes of the weights that the dataset does not have; what was found of them is dropped.
        task: what was judged.
    """

    metrics: Metrics
    detections: DetectionTable
    speed: Speed
    split: str
    image_size: int
    config: EvalConfig
    ignored_classes: tuple[str, ...] = ()
    task: Task = "detect"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """COCO results rows; of a classifier what it says of each image."""
        return self.metrics.rows() if isinstance(self.metrics, ClassMetrics) else self.detections.to_rows()

    def to_json(self) -> dict[str, Any]:
        """Plain values without the detections and the curves; undefined numbers are null."""
        return {
            "split": self.split,
            "image_size": self.image_size,
            "ignored_classes": list(self.ignored_classes),
            "task": self.task,
            "protocol": JUDGES[self.task].protocol(self.config),
            **self.metrics.to_json(),
            "speed": self.speed.to_json(),
        }


def evaluate(
    weights_or_model: str | Path | Detector | Engine,
    data: str | Path | DetectionIndex,
    split: str = "val",
    *,
    image_size: int | None = None,
    batch_size: int = 16,
    config: EvalConfig | None = None,
    device: str | torch.device = "auto",
    workers: int = -1,
    precision: Precision = "fp32",
    fuse: bool = True,
    boxes_as_masks: bool = False,
) -> EvaluationResult:
    """Judge weights on a split of a dataset, by what they were trained for.

    Boxes are judged by the published protocol (README and test script of YOLOv7), instances by COCO's for masks too,
    label maps by the IoU and the accuracy of pixels, classes of whole images by top-1 and top-5 accuracy.

    Classes are matched by name, in any order. The weights may know more classes than the dataset: what they find of
    those cannot be judged and is dropped; ``ignored_classes`` of the result names them. A file that was exported for
    one size sees every image padded to its square, not to the aspect ratio of its batch. One with suppression inside is
    judged by its own thresholds.

    Args:
        weights_or_model: a weights file, an exported file, a detector in memory (not changed), or an engine.
        data: a ``data.yaml``, a COCO JSON, a folder, or an index that is already open.
        split: which part of the dataset.
        image_size: long side of the network input; None takes the one the weights were trained with;
            rounded up to a multiple of the model's stride, with a warning.
        batch_size: images per step.
        config: thresholds; None takes the published ones, or those inside the file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...; an engine has its own.
        workers: loader processes, -1 to choose from the CPUs.
        precision: of the network; boxes and scores are always float32; an engine has its own.
        fuse: fold the training form into the deploy form first (the result is the same, only faster).
        boxes_as_masks: where masks are judged, an object without one fills its box; otherwise the dataset is refused.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: an exported file is asked for what it cannot change any more, or thresholds exclude each other.
        DataError: the dataset cannot be read or lacks masks, or the weights do not know all of its classes.
    """
    from cloverleaf.data.source import open_index

    engine = open_engine(weights_or_model, device=device, precision=precision, fuse=fuse)
    info = engine.info
    config = config or evaluation_config(info)
    size = info.choose_image_size(image_size)
    index = open_index(data, split) if isinstance(data, str | Path) else data
    known = object_names(info)
    category_ids = match_classes(known, index.names, index.category_ids)
    settings = DataConfig(
        image_size=size, batch_size=batch_size, workers=workers, rectangular_eval=not info.fixed,
        boxes_as_masks=boxes_as_masks,
    )  # fmt: skip
    result = _judge(engine, index, settings, config, category_ids)
    pairs = zip(known or index.names, category_ids, strict=True)
    return replace(result, ignored_classes=tuple(name for name, category in pairs if category is None))


def evaluate_model(
    model: Detector,
    index: DetectionIndex,
    *,
    data: DataConfig,
    config: EvalConfig | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "fp32",
    category_ids: Sequence[int | None] | None = None,
    loader: Iterable[Batch] | None = None,
    truth: Truth | None = None,
) -> EvaluationResult:
    """Judge a model in memory.

    Args:
        model: the detector; it is moved to ``device``, put into evaluation mode and back.
        index: the images and the ground truth.
        data: image size, batch size, workers, rectangular batches.
        config: thresholds; None takes the published ones.
        device: where the model runs.
        batch_size, workers: in place of those of ``data``.
        precision: of the network.
        category_ids: category of the dataset per label of the model (None for a class that it does not have);
            None when the labels are the dataset's.
        loader, truth: made of the same index before, the latter by `JUDGES`, to spare making them again.

    Raises:
        DataError: the model has another number of classes than the dataset.
    """
    target = resolve_device(device)
    settings = replace(
        data,
        workers=data.workers if workers is None else workers,
        batch_size=batch_size or data.batch_size,
    )
    categories = tuple(index.category_ids if category_ids is None else category_ids)
    was_training = model.training
    model.to(target).eval()
    try:
        engine = TorchEngine(model, target, precision)
        return _judge(engine, index, settings, config or EvalConfig(), categories, loader, truth)
    finally:
        model.train(was_training)


def _judge(
    engine: Engine,
    index: DetectionIndex,
    data: DataConfig,
    config: EvalConfig,
    category_ids: Sequence[int | None],
    loader: Iterable[Batch] | None = None,
    truth: Truth | None = None,
) -> EvaluationResult:
    """Look at every image of the split and compare with the truth."""
    info = engine.info
    judge = JUDGES[info.task]
    if info.num_classes != judge.classes(len(category_ids)):
        raise DataError(
            what="the model does not fit the dataset",
            why=f"it knows {info.num_classes} classes, the dataset has {len(category_ids)}",
            fix="judge it on the dataset it was made for",
        )
    if truth is None:
        truth = judge.truth(index, data, config)
    if loader is None:
        loader = judge.loader(index, data, stride=info.stride)
    metrics, detections, speed = judge.judge(engine, loader, config, category_ids, truth)
    return EvaluationResult(metrics, detections, speed, index.split, data.image_size, config, task=info.task)


def object_names(info: EngineInfo) -> tuple[str, ...] | None:
    """The classes of objects that a model knows, without a semantic model's background; None where unknown."""
    if info.class_names is None or info.task != "semantic":
        return info.class_names
    return info.class_names[1:]
