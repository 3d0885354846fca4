"""What is found out about a run before its first epoch, so that it does not fail in the middle."""

from __future__ import annotations

from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.predict.engine import info_of
from cloverleaf.predict.instances import check_detections
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.input_size import check_training_size
from cloverleaf.training.phases import blamed, to_check
from cloverleaf.training.teacher import Teacher


def check_fit(config: TrainConfig, model: Detector, teacher: Teacher | None, images: int) -> None:
    """Refuse options that a model cannot be trained or judged with.

    Args:
        config: of the run.
        model: to be trained.
        teacher: that it learns from, or None.
        images: in the training split.

    Raises:
        ConfigError: a wrong image size, a loss option that has no effect, or limits of the evaluation that the model
            cannot keep.
    """
    trains = teacher is not None and config.distillation.teacher_mode == "train"
    check_training_size(
        model,
        config.data.image_size,
        smallest_batch=min(config.data.batch_size, images),
        multi_scale=config.multi_scale,
        teacher=teacher.model if teacher is not None and trains else None,
    )
    for phase in to_check(config):
        with blamed(phase):
            build_criterion(model, phase.loss, image_size=config.data.image_size)
    if model.task == "instance":
        check_detections(info_of(model), config.evaluation)
