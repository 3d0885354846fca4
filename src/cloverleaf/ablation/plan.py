"""From a study file to runs: everything that can be wrong is found here, before the first run starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from cloverleaf.ablation.study import Lines, Study
from cloverleaf.data.source import open_index
from cloverleaf.errors import CloverleafError, ConfigError, DataError, suggest
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.recipes.catalog import choose_recipe, get_recipe
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import flatten, merge, nest, update
from cloverleaf.training.fit import TrainingData, build_model, open_data
from cloverleaf.training.input_size import check_training_size
from cloverleaf.training.runtime import resolve_runtime

T = TypeVar("T")
Values = Mapping[str, Any]
PARTS = ("backbone", "neck", "head")
_OF_THE_STUDY = {
    "seed": "list seeds under seeds", "output": "name the folder with --output",
    "data.source": "name the dataset with data or --data: one study, one dataset",
}  # fmt: skip
_SHARED_ONLY = {"data.val_split": "move it to set: all variations are judged on the same images"}


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of the table.

    Attributes:
        name: of the variation.
        changes: what it changes, by dotted key.
        config: its run, with the first seed.
        spec: its detector, with the dataset's classes.
    """

    name: str
    changes: dict[str, Any]
    config: TrainConfig
    spec: DetectorSpec


@dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        variation, seed: which one.
        config: complete, but for `output`.
    """

    variation: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return run_name(self.variation, self.seed)


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that has been found sound.

    Attributes:
        study: as read.
        variations: all of the study, the baseline first.
        runs: those asked for, seed by seed, so that a study that is cut short has whole rounds.
        seeds: of the runs.
        shared: what all variations set, by dotted key.
        dataset: name and numbers of images for the table.
    """

    study: Study
    variations: tuple[Variation, ...]
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    shared: dict[str, Any]
    dataset: dict[str, Any]

    @property
    def val_split(self) -> str:
        """The split that chooses the best epoch of every run."""
        return self.variations[0].config.data.val_split


def run_name(variation: str, seed: int) -> str:
    """Name of the run's folder."""
    return f"{variation}-seed{seed}"


def make_plan(
    study: Study,
    lines: Lines,
    *,
    data: str | Path | None = None,
    changes: Values | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
) -> Plan:
    """Resolve and check every variation.

    Args:
        study: as `read_study` gives it.
        lines: for messages.
        data: dataset instead of the study's.
        changes: nested values laid over the study's `set`.
        seeds: instead of the study's.
        only: names of the variations to run; None for all.

    Raises:
        CloverleafError: a key, a value, a model, a size or the dataset is wrong; names file, line and variation.
    """
    names = [study.baseline, *(name for name in study.variations if name != study.baseline)]
    for name in only or ():
        if name not in names:
            raise ConfigError(f"--only: no variation {name!r}", "it is not in the study", suggest(name, names))
    source = data or study.data
    if not source:
        raise ConfigError("no dataset", f"neither --data nor data in {lines.path} is given", "give one of them")
    place = {"data": {"source": str(Path(source).resolve())}}
    shared = merge(_shared(study, lines), _given(changes or {}))
    told, shared = flatten(shared), merge(shared, place)
    recipe = study.recipe or _choose_recipe(update(TrainConfig(), shared))
    resolved = {name: _resolve(study, name, recipe, shared, lines) for name in names}
    opened = open_data(resolved[study.baseline])
    variations = tuple(_variation(study, name, config, opened, lines) for name, config in resolved.items())
    dataset = _dataset(study, resolved[study.baseline], opened)
    chosen_seeds = tuple(study.seeds if seeds is None else seeds)
    runs = tuple(
        Run(variation.name, seed, replace(variation.config, seed=seed))
        for seed in chosen_seeds
        for variation in variations
        if only is None or variation.name in only
    )
    return Plan(study, variations, runs, chosen_seeds, told, dataset)


def _plain(values: Values) -> dict[str, Any]:
    """Dotted and nested keys in any mixture, as one flat mapping."""
    return flatten({str(key): _keys_as_text(value) for key, value in values.items()})


def _keys_as_text(value: Any) -> Any:
    return {str(k): _keys_as_text(v) for k, v in value.items()} if isinstance(value, dict) else value


def _given(changes: Values) -> dict[str, Any]:
    """The values of the command line, checked by themselves."""
    for key in flatten(changes):
        if key in _OF_THE_STUDY:
            raise ConfigError(f"--set {key} is not possible here", "it belongs to the study", _OF_THE_STUDY[key])
    update(TrainConfig(), changes, where="--set")
    return dict(changes)


def _shared(study: Study, lines: Lines) -> dict[str, Any]:
    """The nested values of all variations."""
    short = {"model.name": study.model, "epochs": study.epochs}
    values = _plain(study.set)
    _refuse(values, _OF_THE_STUDY | {"recipe": "name it under recipe"}, ("set",), lines)
    _attempt(values, lambda part: update(TrainConfig(), part, where="set"), ("set",), lines)
    return merge(nest({key: value for key, value in short.items() if value is not None}), nest(values))


def _refuse(values: Values, keys: Mapping[str, str], section: tuple[str, ...], lines: Lines) -> None:
    for key in values:
        if key in keys:
            raise ConfigError(
                f"{lines.of_value(section, key)}: {'.'.join(section)}: {key} cannot be set here",
                "it belongs to the study", keys[key],
            )  # fmt: skip


def _attempt(values: Values, attempt: Callable[[dict[str, Any]], T], section: tuple[str, ...], lines: Lines) -> T:
    """Apply all values; if that fails, try each by itself, so that the message names the line of the one to blame."""
    try:
        return attempt(nest(values))
    except CloverleafError as error:
        for key, value in values.items():
            try:
                attempt(nest({key: value}))
            except CloverleafError as own:
                raise _at(lines.of_value(section, key), own) from None
        raise _at(lines.of(*section), error) from None


def _at(where: str, error: CloverleafError) -> CloverleafError:
    """The same error with a place before it."""
    return type(error)(f"{where}: {error.what}", error.why, error.fix)


def _choose_recipe(probe: TrainConfig) -> str:
    return choose_recipe(probe.model.name, len(open_index(probe.data.source, probe.data.train_split)))[0]


def _resolve(study: Study, name: str, recipe: str, shared: Values, lines: Lines) -> TrainConfig:
    """The complete configuration of a variation."""
    section = ("variations", name)
    values = _plain(study.variations[name])
    chosen = values.pop("recipe", None)
    _refuse(values, _OF_THE_STUDY | _SHARED_ONLY, section, lines)
    try:
        base = get_recipe(str(chosen or recipe))
    except ConfigError as error:
        raise _at(lines.of_value(section, "recipe") if chosen else lines.of("recipe"), error) from None
    base = replace(update(base, shared, where=str(lines.path)), seed=study.seeds[0])
    return _attempt(values, lambda part: update(base, part, where=f"variation {name}"), section, lines)


def _variation(study: Study, name: str, config: TrainConfig, opened: TrainingData, lines: Lines) -> Variation:
    """Build the variation's model without weights and its criterion, which is what can still go wrong."""
    section, values = ("variations", name), _plain(study.variations[name])
    where = lines.of(*section)
    try:
        spec = replace(find_spec(config.model.name), num_classes=len(opened.train.names))
    except CloverleafError as error:
        raise _at(_first_line("model.name", study, name, lines), error) from None
    options = {f"{part}.{key}": value for part in PARTS for key, value in getattr(config.model, part).items()}
    try:
        spec = spec.with_overrides(nest(options))
    except ConfigError as error:
        raise _at(_line_of_option(spec, options, study, name, lines), error) from None
    try:
        model = build_model(config, opened.train, Console(quiet=True)) if config.model.weights else empty_detector(spec)
        smallest = min(config.data.batch_size, len(opened.train))
        check_training_size(model, config.data.image_size, smallest_batch=smallest)
        build_criterion(model, config.loss, image_size=config.data.image_size)
        resolve_runtime(config.runtime)
    except CloverleafError as error:
        raise _at(f"{where}: variation {name}", error) from None
    return Variation(name, values, config, spec)


def _line_of_option(spec: DetectorSpec, options: Values, study: Study, name: str, lines: Lines) -> str:
    """Where the option stands that the model refuses by itself; the variation if only their combination is wrong."""
    for key, value in options.items():
        try:
            spec.with_overrides(nest({key: value}))
        except ConfigError:
            return _first_line(f"model.{key}", study, name, lines)
    return f"{lines.of('variations', name)}: variation {name}"


def _first_line(key: str, study: Study, name: str, lines: Lines) -> str:
    """Where a value of a variation was given: in the variation, in `set`, or at the top of the file."""
    for section, values in ((("variations", name), study.variations[name]), (("set",), study.set)):
        if key in _plain(values):
            return f"{lines.of_value(section, key)}: variation {name}"
    return f"{lines.of('model')}: variation {name}"


def _dataset(study: Study, config: TrainConfig, opened: TrainingData) -> dict[str, Any]:
    """What the table says about the data; also opens the judged split."""
    judged = opened.val
    if study.split != config.data.val_split:
        judged = open_index(config.data.source, study.split)
        if judged.names != opened.train.names:
            raise DataError(
                f"{config.data.source}: the splits disagree on the classes",
                f"{config.data.train_split} has {list(opened.train.names)}, {study.split} has {list(judged.names)}",
                "use the same class list in both",
            )
    source = Path(config.data.source)
    return {
        "name": source.name if source.is_dir() else f"{source.parent.name}/{source.name}",
        "train_images": len(opened.train),
        "judged_images": len(judged),
        "classes": len(opened.train.names),
        "image_size": config.data.image_size,
    }
