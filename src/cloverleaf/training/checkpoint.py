"""Checkpoints for resuming: written atomically, two generations kept, checked before they are trusted."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloverleaf import atomic
from cloverleaf.errors import CheckpointError, DataError
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.weights.format import read_metadata

if TYPE_CHECKING:
    import lightning.pytorch as pl
    from rich.console import Console

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def rotate(folder: Path, temporary: Path) -> None:
    """Make ``temporary`` the last checkpoint and the last one the previous; a crash at any point leaves a whole one."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)
    temporary.replace(last)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's archive is complete and every part has its right checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def find_checkpoint(run_dir: Path) -> tuple[Path, str | None]:
    """The newest whole checkpoint of a run, and a warning when the newest of all is damaged.

    Raises:
        CheckpointError: the folder holds no whole checkpoint.
    """
    folder = run_dir / "checkpoint"
    damaged: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        if is_whole(path):
            return path, f"{', '.join(damaged)} is damaged; {name} is used instead" if damaged else None
        damaged.append(name)
    why = f"{' and '.join(damaged)} damaged" if damaged else f"there is no {folder / LAST}"
    raise CheckpointError(f"{run_dir} cannot be resumed", why, "start the run again without --resume in a new --output")


def resume_from(run_dir: Path, say: Console) -> Path:
    """As `find_checkpoint`, and says what it has found; what was half written when the run was killed goes."""
    checkpoint, warning = find_checkpoint(run_dir)
    atomic.remove_leftovers(run_dir)
    if warning:
        say.print(f"warning: {warning}", highlight=False, markup=False)
    say.print(f"resuming {run_dir} from {checkpoint.name}", highlight=False, markup=False)
    return checkpoint


def check_same_labels(run_dir: Path, now: WeightsMetadata) -> None:
    """Refuse to resume on data whose classes, tags or individuals are not those that the run began with.

    Raises:
        DataError: they are others.
    """
    last = run_dir / "weights" / "last.safetensors"
    if not last.is_file():
        return
    began = read_metadata(last)
    for name in ("class_names", "tag_names", "identities"):
        before, after = getattr(began, name), getattr(now, name)
        if before != after:
            raise DataError(
                f"{run_dir} cannot be resumed on these data",
                f"their {name.replace('_', ' ')} have changed since it began: {len(before)} then, {len(after)} now",
                f"restore the data, or start a new run with --set model.weights={last}",
            )


def write_checkpoint(trainer: pl.Trainer, run_dir: Path) -> None:
    """Save the trainer's whole state as the last checkpoint; every process must call it."""
    folder = run_dir / "checkpoint"
    temporary = folder / "writing.ckpt"
    trainer.save_checkpoint(temporary)
    if trainer.is_global_zero:
        rotate(folder, temporary)
    trainer.strategy.barrier("checkpoint")


def random_state() -> dict[str, Any]:
    """State of the Python, NumPy and torch generators, in types that load with `weights_only=True`."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (the global generator is what is saved)
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()  # of this process's GPU: asking the others would set up all of them
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo `random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
