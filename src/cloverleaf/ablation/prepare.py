"""What variations need before they can run: a teacher, a pre-trained backbone, or a file from the command line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloverleaf.ablation.check import Place, check_run, detector_spec
from cloverleaf.ablation.items import IMAGES, Run, Step, Variation, files_of
from cloverleaf.ablation.study import Lines, Preparation, Study
from cloverleaf.ablation.values import at, attempt, plain, refuse
from cloverleaf.errors import CloverleafError, ConfigError, suggest
from cloverleaf.models import parts
from cloverleaf.models.catalog import build_detector
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.pretraining import recipes
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.fit import backbone_of, build_model
from cloverleaf.pretraining.geometry import lay_out
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import merge, to_dict, update
from cloverleaf.training.fit import TrainingData, open_data
from cloverleaf.training.runtime import resolve_runtime
from cloverleaf.training.tasks import model_classes
from cloverleaf.weights.backbone import describe
from cloverleaf.weights.format import WeightsMetadata, save

_OWN = {
    "seed": "a step has the study's first seed; set per_seed: true for one with every seed",
    "output": "name the folder with --output",
    "data.source": "a step learns from the study's dataset",
}
_OWN_IMAGES = {**_OWN, "data.split": "a backbone is pre-trained on the training images"}


@dataclass(frozen=True, slots=True)
class Prepare:
    """What the steps of a study are resolved with.

    Attributes:
        study, lines: as read.
        given: files from the command line, by step.
        resolve: gives the training configuration of some values at a place of the file.
        baseline: its configuration, and the spec of its detector.
        images: training images, to pre-train on.
    """

    study: Study
    lines: Lines
    given: Mapping[str, Path]
    resolve: Callable[[Mapping[str, Any], str | None, tuple[str, ...]], tuple[TrainConfig, dict[str, str]]]
    baseline: TrainConfig
    spec: DetectorSpec
    images: int

    def steps(self) -> dict[str, Step]:
        """All steps, each after those that it needs.

        Raises:
            CloverleafError: a value, a reference or a file is wrong.
        """
        for name in self.given:
            if name not in self.study.prepare:
                raise ConfigError(
                    f"--prepared {name}: no such step", "the study has none of that name under prepare",
                    suggest(name, self.study.prepare),
                )  # fmt: skip
        found: dict[str, Step] = {}
        for name, described in self.study.prepare.items():
            if name in self.given or described.run == "file":
                found[name] = self._file(name)
            elif described.run == "pretrain":
                found[name] = self._pretrained(name, described)
            else:
                found[name] = self._trained(name, described, found)
        return found

    def _file(self, name: str) -> Step:
        path = self.given.get(name)
        if path is None or not path.is_file():
            raise ConfigError(
                f"{self.lines.of('prepare', name)}: {name} is missing" if path is None else f"no file {path}",
                f"{name} is prepared by hand", f"give a weights file with --prepared {name}=FILE",
            )  # fmt: skip
        return Step(name, "file", given=path, about=f"given: {path.name}")

    def _trained(self, name: str, described: Preparation, above: Mapping[str, Step]) -> Step:
        section = ("prepare", name, "set")
        values = _values(described)
        refuse(values, _OWN, section, self.lines)
        config, needs = self.resolve(values, described.recipe, section)
        place = Place(f"step {name}", ((section, values), (("set",), plain(self.study.set))), self.lines)
        for needed in needs.values():
            _check_order(needed, above, described.per_seed, place)
        opened = open_data(config)
        spec = detector_spec(config, opened.train, place)
        with stand_ins(above, opened, needs) as files:
            check_needs(needs, above, spec, place)
            check_run(config, spec, opened, place, files)
        about = (
            f"train {config.model.name}, recipe `{config.recipe}`, {config.epochs} epochs at "
            f"{config.data.image_size} px on {len(opened.train)} images"
        )
        return Step(name, "train", described.per_seed, config, None, needs, about, spec)

    def _pretrained(self, name: str, described: Preparation) -> Step:
        section, values = ("prepare", name, "set"), _values(described)
        refuse(values, _OWN_IMAGES, section, self.lines)
        recipe = described.recipe or recipes.choose_recipe(self.images)[0]
        try:
            base = recipes.get_recipe(recipe)
        except ConfigError as error:
            raise at(self.lines.of("prepare", name, "recipe"), error) from None
        derived: dict[str, Any] = {
            "data": {"image_size": self.baseline.data.image_size},
            "runtime": to_dict(self.baseline.runtime),
        }
        if "backbone.type" not in values:
            derived["backbone"] = parts.to_dict(self.spec.backbone)
        config = attempt(
            values, lambda part: update(base, merge(derived, part), where=f"step {name}"), section, self.lines
        )
        config = replace(config, seed=self.study.seeds[0])
        try:
            backbone = self._check_pretraining(config)
        except CloverleafError as error:
            raise at(f"{self.lines.of('prepare', name)}: step {name}", error) from None
        about = (
            f"pretrain {describe(backbone)}, recipe `{config.recipe}`, {config.epochs} epochs at "
            f"{config.data.image_size} px on {self.images} images without labels"
        )
        return Step(name, "pretrain", described.per_seed, config, None, {"data.source": ""}, about)

    def _check_pretraining(self, config: PretrainConfig) -> Any:
        spec = backbone_of(config)
        backbone = spec.build()
        cells = lay_out(
            config.data.image_size, config.mask.patch_size, config.mask.ratio, stride=backbone.features.strides[-1],
            images_per_step=min(config.data.batch_size, self.images),
        )  # fmt: skip
        build_model(backbone, config, cells, 1)
        resolve_runtime(config.runtime)
        return spec


def _values(described: Preparation) -> dict[str, Any]:
    short = {} if described.epochs is None else {"epochs": described.epochs}
    return {**short, **plain(described.set)}


def _check_order(needed: str, above: Mapping[str, Step], per_seed: bool, place: Place) -> None:
    if needed not in above:
        raise ConfigError(
            f"{place.whole} needs {needed}, which is prepared later", "steps are made in their order",
            f"move {needed} above it",
        )  # fmt: skip
    if above[needed].per_seed and not per_seed:
        raise ConfigError(
            f"{place.whole} needs {needed}, of which every seed has its own", "the step itself is made once",
            "set per_seed: true for it too",
        )  # fmt: skip


def check_needs(needs: Mapping[str, str], steps: Mapping[str, Step], spec: DetectorSpec, place: Place) -> None:
    """Refuse a prepared backbone that is not the one of the detector.

    Raises:
        ConfigError: it is another, or has other options.
    """
    name = needs.get("model.backbone_weights")
    if name is None or steps[name].run == "file":
        return
    step = steps[name]
    own = step.spec.backbone if step.spec else backbone_of(step.config) if step.config else None  # type: ignore[arg-type]
    if own != spec.backbone:
        raise ConfigError(
            f"{place.whole} cannot take the backbone of {name}",
            f"that is {describe(own)}, the detector has {describe(spec.backbone)}", "give both the same options",
        )  # fmt: skip


@contextmanager
def stand_ins(
    steps: Mapping[str, Step], data: TrainingData, needs: Mapping[str, str]
) -> Iterator[dict[str, tuple[str, Path]]]:
    """Files in place of what is still to be prepared, so that it can be checked whether it will fit.

    Yields:
        Name of the step and file, by configuration key; none for backbones, which `check_needs` compares.
    """
    files: dict[str, tuple[str, Path]] = {}
    with tempfile.TemporaryDirectory(prefix="cloverleaf-study-") as folder:
        for key, name in needs.items():
            step = steps[name]
            if step.given is not None:
                files[key] = (name, step.given)
            elif key != "model.backbone_weights" and step.spec is not None and isinstance(step.config, TrainConfig):
                path = Path(folder) / f"{name}.safetensors"
                facts = WeightsMetadata(
                    class_names=model_classes(step.config.task, data.train.names), task=step.config.task
                )
                save(build_detector(step.spec), path, metadata=facts)
                files[key] = (name, path)
        yield files


def check_use(steps: Mapping[str, Step], variations: Sequence[Variation], lines: Lines) -> None:
    """Refuse steps that nothing needs.

    Raises:
        ConfigError: there is one.
    """
    used = _closure({name for variation in variations for name in variation.needs.values()}, steps)
    for name in steps:
        if name not in used:
            raise ConfigError(
                f"{lines.of('prepare', name)}: nothing needs {name}", "no variation refers to it",
                f"write e.g. model.backbone_weights: {{prepared: {name}}} in one, or remove it",
            )  # fmt: skip


def _closure(names: set[str], steps: Mapping[str, Step]) -> set[str]:
    """These steps and all that they need; a step needs only those above it."""
    found = set(names)
    for name in reversed(list(steps)):
        if name in found:
            found |= {needed for needed in steps[name].needs.values() if needed}
    return found


def preparations(steps: Mapping[str, Step], names: set[str], first_seed: int, seeds: Sequence[int]) -> tuple[Run, ...]:
    """The runs that make these steps and all that they need, in their order."""
    wanted, runs = _closure(names, steps), []
    for name, step in steps.items():
        if name not in wanted or step.config is None:
            continue
        for seed in seeds if step.per_seed else (None,):
            own = first_seed if seed is None else seed
            runs.append(Run("", seed, replace(step.config, seed=own), needed_files(step, steps, own), name))
    return tuple(runs)


def needed_files(step: Step, steps: Mapping[str, Step], seed: int) -> dict[str, str]:
    """Files that the making of a step needs."""
    if step.run == "pretrain":
        return {"data.source": IMAGES}
    return files_of(step.needs, steps, seed)
