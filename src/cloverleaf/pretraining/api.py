"""The command `cloverleaf pretrain` as a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloverleaf.errors import ConfigError
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.recipes import choose_recipe, get_recipe
from cloverleaf.training.config_io import flatten, merge, nest, parse_assignments, read, to_dict, update
from cloverleaf.training.run_dir import next_free

if TYPE_CHECKING:
    from cloverleaf.pretraining.fit import PretrainResult

_KEYS = {
    "backbone": "backbone.type", "images": "data.source", "image_size": "data.image_size",
    "batch_size": "data.batch_size", "mask_ratio": "mask.ratio", "patch_size": "mask.patch_size",
}  # fmt: skip
_HARMLESS = ("runtime.", "data.workers", "output")


def pretrain(
    backbone: str | None = None,
    images: str | Path | None = None,
    *,
    epochs: int | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    mask_ratio: float | None = None,
    patch_size: int | None = None,
    output: str | Path | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    overrides: Mapping[str, Any] | list[str] | None = None,
    command: str = "",
) -> PretrainResult:
    """Pre-train a backbone on images without labels.

    Args:
        backbone: `efficient-rep`, `elan-tiny`, `timm/resnet18`, ...; the recipe's own when None.
        images: a folder, or a `data.yaml` or COCO JSON, of which the training split is used.
        epochs, image_size, batch_size, mask_ratio, patch_size: override the recipe.
        output: run folder; `runs/pretrain` (numbered) when None.
        recipe: `spark` or `small`; None chooses by the number of images.
        config: a `config.yaml` to repeat.
        resume: continue the run in `output`.
        overrides: nested values, or `["optimizer.lr=0.01"]` as on the command line.
        command: shown in the report as how the run was started.
    """
    from rich.console import Console

    from cloverleaf.pretraining.fit import fit
    from cloverleaf.training.runtime import world

    named = {
        "backbone": backbone, "images": images, "epochs": epochs, "image_size": image_size, "batch_size": batch_size,
        "mask_ratio": mask_ratio, "patch_size": patch_size,
    }  # fmt: skip
    changes = nest({_KEYS.get(k, k): str(v) if isinstance(v, Path) else v for k, v in named.items() if v is not None})
    changes = merge(changes, parse_assignments(overrides) if isinstance(overrides, list) else dict(overrides or {}))
    console = Console(soft_wrap=True)
    if resume:
        if recipe is not None or config is not None:
            raise ConfigError(
                "--resume with --recipe or --config", "a resumed run keeps its own configuration", "leave them out"
            )
        if output is None:
            raise ConfigError("--resume without --output", "which run to resume is not said", "name its folder")
        resolved, reason = resume_config(Path(output), changes), "resumed"
    else:
        if output is None and world()[1] > 1:
            raise ConfigError(
                "several processes without --output", "each would choose a folder of its own", "name one with --output"
            )
        folder = Path(output) if output is not None else next_free(Path("runs/pretrain"))
        resolved, reason = resolve(merge(changes, {"output": str(folder)}), recipe=recipe, config_file=config)
        if world()[0] == 0 and resolved.data.source:
            console.print(f"recipe {resolved.recipe or '(none)'}: {reason}", highlight=False)
    return fit(resolved, resume=resume, console=console, notes={"command": command, "recipe_reason": reason})


def resolve(
    changes: Mapping[str, Any], *, recipe: str | None, config_file: Path | str | None
) -> tuple[PretrainConfig, str]:
    """The configuration of a run, and why this recipe.

    Raises:
        ConfigError: unknown recipe, key or value, or both a recipe and a file.
        DataError: the images, which decide the recipe, cannot be used.
    """
    if config_file is not None:
        if recipe is not None:
            raise ConfigError("--recipe and --config together", "each is a complete configuration", "give one of them")
        base = read(PretrainConfig, config_file)
        return update(replace(base, output=""), changes, where="options"), f"read from {config_file}"
    if recipe is not None:
        return update(get_recipe(recipe), changes, where="options"), "as asked"
    probe = update(get_recipe("small"), changes, where="options")
    if not probe.data.source:
        return probe, "no images given"
    from cloverleaf.pretraining.images import count_images, find_images

    if not (count := count_images(probe.data)):
        find_images(probe.data)  # says what is wrong
    name, reason = choose_recipe(count)
    return update(get_recipe(name), changes, where="options"), reason


def resume_config(run_dir: Path, changes: Mapping[str, Any]) -> PretrainConfig:
    """The configuration of the run in ``run_dir``; only what does not change the result may be changed.

    Raises:
        ConfigError: a change that would make it another run.
    """
    stored = read(PretrainConfig, run_dir / "config.yaml")
    resumed = update(stored, merge(dict(changes), {"output": str(run_dir)}), where="options")
    before = flatten(to_dict(stored))
    for key, value in flatten(to_dict(resumed)).items():
        if before.get(key) != value and not key.startswith(_HARMLESS):
            raise ConfigError(
                f"--resume with another {key}",
                f"the run has {before.get(key)!r}, asked for {value!r}; a resumed run repeats the unbroken one",
                "leave it out, or start a new run",
            )
    return resumed
