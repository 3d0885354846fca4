"""`cloverleaf.train`: the command `cloverleaf train` as a function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloverleaf.errors import ConfigError
from cloverleaf.recipes.resolve import resolve, resume_config
from cloverleaf.training.config_io import merge, nest, parse_assignments
from cloverleaf.training.run_dir import next_free

if TYPE_CHECKING:
    from cloverleaf.training.finish import TrainResult


def train(
    model: str | None = None,
    data: str | Path | None = None,
    *,
    task: str | None = None,
    epochs: int | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    output: str | Path | None = None,
    weights: str | Path | None = None,
    teacher: str | Path | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    overrides: Mapping[str, Any] | list[str] | None = None,
    command: str = "",
) -> TrainResult:
    """Train a detector and leave a run folder with weights, metrics, pictures and a report.

    Args:
        model: catalog name or composition; the recipe's own when None.
        data: a `data.yaml`, a COCO JSON or a folder.
        task: `detect`, `instance`, `semantic`, `classify` or `multi`, which gives any detector of boxes further tasks;
            the model's when None, and without a model it chooses one.
        epochs, image_size, batch_size: override the recipe.
        output: run folder; `runs/train` (numbered) when None.
        weights: Cloverleaf weights to start from; without ``model`` and ``config`` their model is trained.
        teacher: weights of a trained model to learn from as well (distillation).
        recipe: a packaged recipe; None chooses by the size of the training split.
        config: a `config.yaml` to repeat.
        resume: continue the run in `output`.
        overrides: nested values, or `["optimizer.lr=0.01"]` as on the command line.
        command: shown in the report as how the run was started.

    Example:
        >>> result = cloverleaf.train("yolov7-tiny", "data.yaml", epochs=50)  # doctest: +SKIP
        >>> detector = cloverleaf.Predictor(result.best_weights)  # doctest: +SKIP
    """
    from cloverleaf.training.fit import fit
    from cloverleaf.training.runtime import world

    changes = _named(
        task=task, model=model, data=data, epochs=epochs, image_size=image_size, batch_size=batch_size, weights=weights,
        teacher=teacher,
    )  # fmt: skip
    extra = parse_assignments(overrides) if isinstance(overrides, list) else dict(overrides or {})
    changes = merge(changes, extra)
    if resume and (recipe is not None or config is not None):
        raise ConfigError(
            "--resume with --recipe or --config", "a resumed run keeps its own configuration", "leave them out"
        )
    if resume:
        run_dir = Path(output) if output is not None else _latest()
        resolved, reason = resume_config(run_dir, changes), "resumed"
    else:
        if output is None and world()[1] > 1:
            raise ConfigError(
                "several processes without --output", "each would choose a folder of its own", "name one with --output"
            )
        if config is None:
            changes = _with_model_of_weights(changes)
        folder = Path(output) if output is not None else next_free(Path("runs/train"))
        resolved, reason = resolve(merge(changes, {"output": str(folder)}), recipe=recipe, config_file=config)
    from rich.console import Console

    console = Console(soft_wrap=True)
    if not resume and resolved.data.source:
        console.print(f"recipe {resolved.recipe or '(none)'}: {reason}", highlight=False)
    return fit(resolved, resume=resume, console=console, notes={"command": command, "recipe_reason": reason})


def _named(**options: Any) -> dict[str, Any]:
    """The named options as nested configuration values."""
    keys = {
        "model": "model.name",
        "data": "data.source",
        "image_size": "data.image_size",
        "batch_size": "data.batch_size",
        "weights": "model.weights",
        "teacher": "distillation.teacher",
    }
    given = {name: option for name, option in options.items() if option is not None}
    return nest({keys.get(name, name): str(v) if isinstance(v, Path) else v for name, v in given.items()})


def _with_model_of_weights(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``, with the model of `model.weights` where no `model.name` is given."""
    chosen = changes.get("model", {})
    if not isinstance(chosen, Mapping) or not chosen.get("weights") or "name" in chosen:
        return dict(changes)
    from cloverleaf.training.multi import without_left_out
    from cloverleaf.training.starting_weights import model_options

    options = model_options(str(chosen["weights"]))
    if isinstance(given := chosen.get("head"), Mapping) and "head" in options:
        options["head"] = without_left_out(options["head"], given)
    if changes.get("task") == "multi" and options.get("head", {}).get("type") != "multi":
        options["head"] = {"type": "multi", "boxes": options.get("head", {})}
    return merge({"model": options}, changes)


def _latest() -> Path:
    """The run folder of `runs/` that was written last."""
    runs = sorted(Path("runs").glob("*/checkpoint"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ConfigError(
            "--resume without --output", "there is no run under runs/", "name the run folder with --output"
        )
    return runs[-1].parent
