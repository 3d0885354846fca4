"""The trained model that a student learns from beside the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.heads.dense import DenseHead
from cloverleaf.losses.dense_config import DistillationConfig
from cloverleaf.losses.distillation import Lesson, distillation_weight
from cloverleaf.models.detector import Detector
from cloverleaf.training.sync_batchnorm import synchronise_batchnorm
from cloverleaf.weights.format import load


class Teacher:
    """A trained detector that says what it thinks of the student's images.

    Its weights never change and are no part of the run's weights or checkpoints.

    Attributes:
        model: the detector.
        config: how it teaches.
        digest: of its weights file, by which a resumed run knows that the teacher is the same.
    """

    def __init__(self, model: Detector, config: DistillationConfig, digest: str) -> None:
        self.model, self.config, self.digest = model.requires_grad_(False), config, digest
        if config.teacher_mode == "train":
            for module in model.train().modules():
                if isinstance(module, _BatchNorm):
                    module.track_running_stats = False  # statistics of the batch, and none are kept

    def lesson(self, images: Tensor, progress: float, maps: Sequence[Tensor]) -> Lesson:
        """What it says about a batch.

        Args:
            images: ``(B, 3, H, W)`` float32 in [0, 1].
            progress: share of the epochs that have passed.
            maps: of the student's neck.
        """
        parameter = next(self.model.parameters())
        if parameter.device != images.device:
            self.model.to(images.device)
        with torch.no_grad():
            own = self.model.features(images)
            raw = self.model.head(own)
        levels = len(self.model.strides)
        compared = (maps[:levels], own[:levels]) if self.config.feature else None
        return Lesson(raw, distillation_weight(progress), compared)

    def synchronised(self, device_kind: str) -> None:
        """See the global batch in a distributed run, where statistics are those of the batch."""
        if self.config.teacher_mode == "train":
            self.model = synchronise_batchnorm(self.model, device_kind)  # type: ignore[assignment]

    def to(self, memory_format: torch.memory_format) -> None:
        """Change the layout of its weights."""
        nn.Module.to(self.model, memory_format=memory_format)


def build_teacher(
    config: DistillationConfig, student: Detector, class_names: Sequence[str], image_size: int
) -> Teacher | None:
    """The teacher that `distillation.teacher` names; None where it names none.

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: an option without effect, or a teacher whose output cannot be compared with the student's.
    """
    if config.teacher is None:
        _refuse_idle(config)
        return None
    if not config.teacher:
        raise ConfigError(
            "no teacher", "this recipe distils from a trained model", "give its weights with --teacher WEIGHTS"
        )
    if Path(config.teacher).suffix == ".onnx":
        raise ConfigError(
            f"teacher {config.teacher} is an exported file", "a teacher gives raw output, which exported files do not",
            "give the weights that it was exported from",
        )  # fmt: skip
    model = load(config.teacher)
    _check(config, student, model, tuple(class_names), image_size)
    return Teacher(model, config, hashlib.sha256(Path(config.teacher).read_bytes()).hexdigest())


def check_same_teacher(teacher: Teacher | None, digest: str | None) -> None:
    """Raise `CheckpointError` where a run is resumed with another teacher than it began with."""
    if (None if teacher is None else teacher.digest) != digest:
        raise CheckpointError(
            "the teacher is not the one that this run began with",
            "its weights file has changed",
            "put the file back, or start a new run with --weights from the last epoch",
        )


def _refuse_idle(config: DistillationConfig) -> None:
    default = DistillationConfig()
    for name in ("temperature", "cls", "dfl", "scale_classes", "feature", "teacher_mode"):
        if (value := getattr(config, name)) != getattr(default, name):
            raise ConfigError(
                f"distillation.{name} = {value!r} has no effect", "there is no teacher",
                "give one with --teacher WEIGHTS, or leave the option out",
            )  # fmt: skip


def _check(
    config: DistillationConfig, student: Detector, teacher: Detector, names: tuple[str, ...], image_size: int
) -> None:
    """Refuse what cannot be compared; says what differs."""
    where = f"teacher {config.teacher}"
    if not isinstance(student.head, DenseHead) or not isinstance(teacher.head, DenseHead):
        who = (teacher if isinstance(student.head, DenseHead) else student).spec.name
        raise ConfigError(
            f"{where} cannot teach {student.spec.name}",
            f"distillation compares the output of anchor-free (dense) heads, and that of {who} is another",
            "take a student and a teacher with dense heads, such as gold-yolo-n and gold-yolo-s",
        )
    taught = teacher.metadata.class_names if teacher.metadata is not None else ()
    if taught != names:
        raise ConfigError(
            f"{where} knows other classes", _difference(taught, names),
            "train a teacher on a dataset with the same class list, in the same order",
        )  # fmt: skip
    if teacher.strides != student.strides:
        raise ConfigError(
            f"{where} looks at other cells", f"its strides are {teacher.strides}, the student's {student.strides}",
            "take a teacher with the same strides",
        )  # fmt: skip
    if config.dfl and (not student.head.reg_max or teacher.head.reg_max != student.head.reg_max):
        match = "set model.head.reg_max to that of the teacher, or " if teacher.head.reg_max else ""
        raise ConfigError(
            f"{where} predicts other distances",
            f"its distributions have reg_max {teacher.head.reg_max}, the student's {student.head.reg_max} (0: none)",
            f"{match}leave the term out with --set distillation.dfl=0",
        )
    widths, own = (tuple(one.neck.features.channels[: len(one.strides)]) for one in (teacher, student))  # type: ignore[union-attr, index]
    if config.feature and widths != own:
        raise ConfigError(
            f"{where} has other features", f"the widths of its maps are {widths}, the student's {own}",
            "take a teacher of the same size, or leave the term out with --set distillation.feature=0",
        )  # fmt: skip
    if config.teacher_mode == "train" and teacher.spec.fused:
        raise ConfigError(
            f"{where} is fused", "its BatchNorm layers are folded away, so it has no training mode",
            "set distillation.teacher_mode=eval, or give the weights that it was fused from",
        )  # fmt: skip
    if image_size % teacher.max_stride:
        raise ConfigError(
            f"{where} cannot look at images of {image_size} px", f"its coarsest map has stride {teacher.max_stride}",
            f"use an image size that {teacher.max_stride} divides",
        )  # fmt: skip


def _difference(teacher: tuple[str, ...], student: tuple[str, ...]) -> str:
    if not teacher:
        return "its file names no classes"
    if set(teacher) == set(student) and len(teacher) == len(student):
        first = next(i for i, (a, b) in enumerate(zip(teacher, student, strict=True)) if a != b)
        return (
            "the names are the same in another order: "
            f"class {first} is {teacher[first]!r} to it and {student[first]!r} in the data"
        )
    more, missing = (sorted(set(a) - set(b)) for a, b in ((teacher, student), (student, teacher)))
    parts = [f"it has {len(teacher)}, the data {len(student)}"]
    parts += [f"only the teacher knows {', '.join(more[:3])}"] if more else []
    parts += [f"it does not know {', '.join(missing[:3])}"] if missing else []
    return "; ".join(parts)
