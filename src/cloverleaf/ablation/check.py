"""Whether a configuration of a study can be trained: its model is built without weights, and everything is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cloverleaf.ablation.study import Lines
from cloverleaf.ablation.values import Section, at
from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import CloverleafError
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.training.check import check_fit
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import nest, update
from cloverleaf.training.fit import TrainingData
from cloverleaf.training.multi import for_dataset
from cloverleaf.training.runtime import resolve_runtime
from cloverleaf.training.starting_weights import build_model
from cloverleaf.training.tasks import check_data, check_model, check_options, model_classes
from cloverleaf.training.teacher import build_teacher

PARTS = ("backbone", "neck", "head", "supervision")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the values of a configuration stand, for messages.

    Attributes:
        title: such as ``variation plain``.
        sections: flat values by section of the file, those that win first.
        lines: of the file.
    """

    title: str
    sections: Sequence[tuple[Section, Mapping[str, Any]]]
    lines: Lines

    @property
    def whole(self) -> str:
        """Of all of it."""
        return f"{self.lines.of(*self.sections[0][0])}: {self.title}"

    def of(self, key: str) -> str:
        """Of one value; it may stand at the top of the file."""
        for section, values in self.sections:
            for given in (key, key.removesuffix(".type")):  # a part may be given by its name alone
                if given in values:
                    return f"{self.lines.of_value(section, given)}: {self.title}"
        return f"{self.lines.of('model')}: {self.title}"


def detector_spec(config: TrainConfig, train: DetectionIndex, place: Place) -> DetectorSpec:
    """The detector of ``config`` for the dataset's classes, and for its tags and individuals.

    Raises:
        CloverleafError: model or options are wrong; says where they stand.
    """
    try:
        spec = replace(find_spec(config.model.name), num_classes=len(model_classes(config.task, train.names)))
    except CloverleafError as error:
        raise at(place.of("model.name"), error) from None
    options = {f"{part}.{key}": value for part in PARTS for key, value in getattr(config.model, part).items()}
    try:
        return for_dataset(spec.with_overrides(nest(options)), config, train)
    except CloverleafError as error:
        raise at(_line_of_option(spec, options, place), error) from None


def _line_of_option(spec: DetectorSpec, options: Mapping[str, Any], place: Place) -> str:
    """Where the option stands that the model refuses by itself; the whole if only their combination is wrong."""
    for key, value in options.items():
        try:
            spec.with_overrides(nest({key: value}))
        except CloverleafError:
            return place.of(f"model.{key}")
    return place.whole


def check_run(
    config: TrainConfig, spec: DetectorSpec, data: TrainingData, place: Place, files: Mapping[str, tuple[str, Path]]
) -> None:
    """Do what a run does before its first epoch.

    Args:
        config: of the run.
        spec: of its detector.
        data: its splits.
        place: for messages.
        files: for keys that take something prepared, its name and a file that stands for it.

    Raises:
        CloverleafError: something does not fit; says where.
    """
    filled = update(config, nest({key: str(path) for key, (_, path) in files.items()}))
    try:
        check_model(filled)
        check_options(filled)
        check_data(filled, data.train, data.val)
        part = filled.model
        given = part.weights or part.backbone_weights
        model = build_model(filled, data.train, Console(quiet=True)) if given else empty_detector(spec)
        teacher = build_teacher(filled.distillation, model, data.train.names, config.data.image_size)
        check_fit(config, model, teacher, len(data.train))
        resolve_runtime(config.runtime)
    except CloverleafError as error:
        raise at(place.whole, _named(error, files)) from None


def _named(error: CloverleafError, files: Mapping[str, tuple[str, Path]]) -> CloverleafError:
    """The same error with names for the files that stand for what is prepared."""
    texts = [error.what, error.why, error.fix]
    for name, path in files.values():
        texts = [text.replace(str(path), f"{name!r} (prepared)") for text in texts]
    return type(error)(*texts)
