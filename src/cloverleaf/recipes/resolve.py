"""From a recipe, a file and options to the configuration of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloverleaf.errors import ConfigError
from cloverleaf.recipes.catalog import choose_recipe, get_recipe
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import flatten, merge, read_config, to_dict, update
from cloverleaf.training.multi import with_several_tasks
from cloverleaf.training.tasks import RUN_TASKS, RunTask, check_model, chosen_spec


def resolve(
    changes: Mapping[str, Any], *, recipe: str | None = None, config_file: Path | str | None = None
) -> tuple[TrainConfig, str]:
    """The configuration of a run, and why this recipe.

    Args:
        changes: nested values that override the recipe; without ``task`` the model decides it, and with a task but
            without a model the task has a usual one.
        recipe: a packaged recipe; None chooses by the size of the training split.
        config_file: the config.yaml of a run, instead of a recipe.

    Raises:
        ConfigError: unknown recipe, key or value, a recipe among the changes, a task that is not the model's, or both a
            recipe and a file.
    """
    if "recipe" in changes:
        raise ConfigError(
            f"recipe = {changes['recipe']!r} among the options has no effect",
            "options change values of a recipe that is chosen before them",
            f"use --recipe {changes['recipe']}" if changes["recipe"] and config_file is None else "leave it out",
        )  # fmt: skip
    if config_file is not None:
        if recipe is not None:
            raise ConfigError("--recipe and --config together", "each is a complete configuration", "give one of them")
        base = read_config(config_file)
        return _for_task(replace(base, output=""), changes), f"read from {config_file}"
    if recipe is not None:
        return _for_task(get_recipe(recipe), changes), "as asked"
    changes = _with_model_of_task(changes)
    probe = _for_task(get_recipe("small"), changes)
    if not probe.data.source:
        return probe, "no dataset given"
    from cloverleaf.data.source import open_index
    from cloverleaf.data.subset import shared_count

    images = shared_count(len(open_index(probe.data.source, probe.data.train_split)), probe.data.fraction)
    name, reason = choose_recipe(
        probe.model.name, images, teacher=probe.distillation.teacher is not None, spec=chosen_spec(probe.model)
    )
    return _for_task(get_recipe(name), changes), reason


def _for_task(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """``base`` with the changes and, where no task is among them, that of its model.

    Raises:
        ConfigError: a wrong key or value, or a task that is not the model's.
        UnknownModelError: no model of that name.
    """
    config = update(base, changes, where="options")
    if changes.get("task") == "multi":
        config = replace(config, model=with_several_tasks(config.model))
    if "task" not in changes:
        return replace(config, task=chosen_spec(config.model).task)
    check_model(config)
    return config


def _with_model_of_task(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``, with the usual model of a task where none is named."""
    task, model = changes.get("task"), changes.get("model", {})
    known: Mapping[Any, RunTask] = RUN_TASKS
    usual = known[task].default_model if task in known else ""  # another task is refused with the other options
    named = not isinstance(model, Mapping) or "name" in model
    return dict(changes) if named or not usual else merge({"model": {"name": usual}}, changes)


def resume_config(run_dir: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the run in ``run_dir``; only what does not change the result may be changed.

    Raises:
        ConfigError: a change that would make it another run.
    """
    stored = read_config(run_dir / "config.yaml")
    harmless = ("runtime.", "data.workers", "data.cache", "output")
    before = flatten(to_dict(stored))
    changed = flatten(to_dict(update(stored, merge(dict(changes), {"output": str(run_dir)}), where="options")))
    for key, value in changed.items():
        if before.get(key) != value and not key.startswith(harmless):
            raise ConfigError(
                f"--resume with another {key}",
                f"the run has {before.get(key)!r}, asked for {value!r}; a resumed run repeats the unbroken one",
                f"leave it out, or start a new run with --set model.weights={run_dir}/weights/last.safetensors",
            )
    return update(stored, merge(dict(changes), {"output": str(run_dir)}), where="options")
