"""From a study file to runs: everything that can be wrong is found here, before the first run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cloverleaf.ablation.check import Place, check_run, detector_spec
from cloverleaf.ablation.items import Plan, Run, Variation, files_of
from cloverleaf.ablation.metrics import TABLES
from cloverleaf.ablation.prepare import Prepare, check_needs, check_use, preparations, stand_ins
from cloverleaf.ablation.study import Lines, Study
from cloverleaf.ablation.values import Section, Values, at, attempt, plain, refuse, take_references
from cloverleaf.data.source import open_index
from cloverleaf.errors import CloverleafError, ConfigError, DataError, suggest
from cloverleaf.models.spec import Task
from cloverleaf.recipes.catalog import choose_recipe, get_recipe
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.config_io import flatten, merge, nest, update
from cloverleaf.training.fit import TrainingData, open_data
from cloverleaf.training.tasks import chosen_spec

_OF_THE_STUDY = {
    "seed": "list seeds under seeds", "output": "name the folder with --output",
    "data.source": "name the dataset with data or --data: one study, one dataset",
}  # fmt: skip
_SHARED_ONLY = {
    "data.val_split": "move it to set: all variations are judged on the same images",
    "task": "leave it out: it follows from the model",
}


def make_plan(
    study: Study,
    lines: Lines,
    *,
    data: str | Path | None = None,
    changes: Values | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    prepared: Mapping[str, Path] | None = None,
) -> Plan:
    """Resolve and check every variation and every step that they need.

    Args:
        study: as `read_study` gives it.
        lines: for messages.
        data: dataset instead of the study's.
        changes: nested values laid over the study's `set`.
        seeds: instead of the study's.
        only: names of the variations to run; None for all.
        prepared: files in place of steps, by name.

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
    own, references = _shared(study, lines)
    shared = merge(own, _given(changes or {}))
    told, shared = flatten(shared), merge(shared, place)
    recipe = study.recipe or _choose_recipe(update(TrainConfig(), shared))
    resolve = partial(_resolve, study=study, usual=recipe, shared=shared, references=references, lines=lines)
    resolved = {name: _variation(study, name, resolve, lines) for name in names}
    base = resolved[study.baseline][0]
    opened = open_data(base)
    specs = {name: detector_spec(v[0], opened.train, _place(study, name, lines)) for name, v in resolved.items()}
    _check_task(resolved, study, lines)
    _check_metric(study, base.task, lines)
    images = open_index(base.data.source, base.data.train_split) if study.prepare else None
    steps = Prepare(
        study, lines, prepared or {}, resolve, base, specs[study.baseline], len(images) if images else 0
    ).steps()  # fmt: skip
    variations = []
    for name, (config, needs) in resolved.items():
        where = _place(study, name, lines)
        check_needs(needs, steps, specs[name], where)
        with stand_ins(steps, opened, needs) as files:
            check_run(config, specs[name], opened, where, files)
        changed = plain(study.variations[name])
        variations.append(Variation(name, changed, config, specs[name], needs))
    check_use(steps, variations, lines)
    chosen_seeds = tuple(study.seeds if seeds is None else seeds)
    asked = [variation for variation in variations if only is None or variation.name in only]
    runs = tuple(run_of(variation, seed, steps) for seed in chosen_seeds for variation in asked)
    wanted = {name for variation in asked for name in variation.needs.values()}
    return Plan(
        study, base.task, tuple(variations), runs, chosen_seeds, told, _dataset(study, base, opened), steps,
        preparations(steps, wanted, study.seeds[0], chosen_seeds),
        tuple(images.image_path(i) for i in range(len(images))) if images else (),
    )  # fmt: skip


def run_of(variation: Variation, seed: int, steps: Mapping[str, Any]) -> Run:
    """The run of a variation with a seed."""
    return Run(variation.name, seed, replace(variation.config, seed=seed), files_of(variation.needs, steps, seed))


def _place(study: Study, name: str, lines: Lines) -> Place:
    sections = ((("variations", name), plain(study.variations[name])), (("set",), plain(study.set)))
    return Place(f"variation {name}", sections, lines)


def _given(changes: Values) -> dict[str, Any]:
    """The values of the command line, checked by themselves."""
    for key in flatten(changes):
        if key in _OF_THE_STUDY:
            raise ConfigError(f"--set {key} is not possible here", "it belongs to the study", _OF_THE_STUDY[key])
    update(TrainConfig(), changes, where="--set")
    return dict(changes)


def _shared(study: Study, lines: Lines) -> tuple[dict[str, Any], dict[str, str]]:
    """The nested values of all variations, and what they all need."""
    short = {"model.name": study.model, "epochs": study.epochs}
    values = plain(study.set)
    references = take_references(values, study, ("set",), lines)
    refuse(values, _OF_THE_STUDY | {"recipe": "name it under recipe"}, ("set",), lines)
    attempt(values, lambda part: update(TrainConfig(), part, where="set"), ("set",), lines)
    return merge(nest({key: value for key, value in short.items() if value is not None}), nest(values)), references


def _choose_recipe(probe: TrainConfig) -> str:
    images = len(open_index(probe.data.source, probe.data.train_split))
    return choose_recipe(probe.model.name, images, spec=chosen_spec(probe.model))[0]


def _resolve(
    values: Values,
    recipe: str | None,
    section: Section,
    *,
    study: Study,
    usual: str,
    shared: Values,
    references: Mapping[str, str],
    lines: Lines,
) -> tuple[TrainConfig, dict[str, str]]:
    """The complete configuration of flat ``values`` in a section, and the steps that it needs by key."""
    values = dict(values)
    own = take_references(values, study, section, lines)
    try:
        base = get_recipe(recipe or usual)
    except ConfigError as error:
        where = lines.of_value(section, "recipe") if section[0] == "variations" else lines.of(*section[:-1], "recipe")
        raise at(where if recipe else lines.of("recipe"), error) from None
    base = replace(update(base, shared, where=str(lines.path)), seed=study.seeds[0])
    title = f"{section[0].removesuffix('s')} {section[1]}"
    config = attempt(values, lambda part: update(base, part, where=title), section, lines)
    if "task" not in flatten(shared):
        try:
            config = replace(config, task=_task(config.model))
        except CloverleafError as error:
            blamed = next((key for key in values if key == "model.name" or key.startswith("model.head")), None)
            raise at(lines.of_value(section, blamed) if blamed else lines.of("model"), error) from None
    return config, {**{key: name for key, name in references.items() if key not in values}, **own}


def _task(model: ModelConfig) -> Task:
    """Decided by name and head; the other parts are checked later, where more is known for the message."""
    return chosen_spec(replace(model, backbone={}, neck={}, supervision={})).task


def _variation(study: Study, name: str, resolve: Any, lines: Lines) -> tuple[TrainConfig, dict[str, str]]:
    section, values = ("variations", name), plain(study.variations[name])
    recipe = values.pop("recipe", None)
    refuse(values, _OF_THE_STUDY | _SHARED_ONLY, section, lines)
    found: tuple[TrainConfig, dict[str, str]] = resolve(values, None if recipe is None else str(recipe), section)
    return found


def _check_task(resolved: Mapping[str, tuple[TrainConfig, Any]], study: Study, lines: Lines) -> None:
    task = resolved[study.baseline][0].task
    for name, (config, _) in resolved.items():
        if config.task != task:
            raise ConfigError(
                f"{lines.of('variations', name)}: variation {name} is for --task {config.task}",
                f"{study.baseline} is for --task {task}, and one table compares the same metrics",
                "make two studies of it",
            )


def _check_metric(study: Study, task: Task, lines: Lines) -> None:
    known = TABLES[task].columns
    if study.metric is not None and study.metric not in known:
        raise ConfigError(
            f"{lines.of('metric')}: no metric {study.metric!r}", f"tables of --task {task} do not have it",
            suggest(study.metric, known),
        )  # fmt: skip


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
