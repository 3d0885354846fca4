"""`cloverleaf import`: published checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from cloverleaf.weights.published import ImportedCheckpoint


class Form(StrEnum):
    """Forms of a model; `cloverleaf info` shows their cost."""

    training = "training"
    deploy = "deploy"
    fused = "fused"


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="Published checkpoint (.pt, .pth or .safetensors).", metavar="FILE", show_default=False),
    ],
    model: Annotated[str | None, typer.Option(help="Catalog name; default: recognised by names and shapes.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write; default: FILE with .safetensors.")
    ] = None,
    form: Annotated[Form | None, typer.Option(help="Convert to this form; default: that of FILE.")] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Start the head anew for so many classes, keep everything else.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16, which halves the file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Read a published YOLOv7 or Gold-YOLO checkpoint and write it as Cloverleaf weights.

    Nothing in FILE is executed. Every tensor must be accounted for, or nothing is written. A fused form is for
    inference only; the others can be trained further.

    Examples:

        cloverleaf import yolov7.pt

        cloverleaf import yolov7_training.pt --model yolov7 -o start.safetensors --num-classes 3

        cloverleaf import gold_s.pt -o gold-yolo-s.safetensors

        cloverleaf import yolov7-w6_training.pt --form fused --half -o yolov7-w6.safetensors
    """
    from cloverleaf.weights.format import save
    from cloverleaf.weights.published import import_checkpoint

    target = _target(file, output, force)
    done = import_checkpoint(file, model, form=form.value if form is not None else None, num_classes=num_classes)
    for line in _report(file, done):
        typer.echo(line)
    for line in _warnings(done):
        typer.echo(f"warning: {line}", err=True)
    save(done.detector, target, half=half)
    typer.echo(f"{done.detector.spec.form} form in {target} ({target.stat().st_size / 1e6:.1f} MB)")


def _target(file: Path, output: Path | None, force: bool) -> Path:
    """Where to write; checked before anything is read."""
    target = output if output is not None else file.parent / f"{file.stem or file}.safetensors"
    if target.is_dir():
        target /= f"{file.stem}.safetensors"
    if target.suffix != ".safetensors":
        raise ConfigError(f"--output {target} has another ending", "weights files end in .safetensors", "name it so")
    if target.exists() and file.exists() and target.samefile(file):
        raise ConfigError(
            f"{file} would overwrite itself", "input and output are one file", "name another with --output"
        )
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already", "it is not overwritten unasked", "name another, or add --force")
    return target


def _report(file: Path, done: ImportedCheckpoint) -> list[str]:
    """What was found."""
    checkpoint, detector = done.checkpoint, done.detector
    kinds = {"zip": "zip archive of torch", "legacy": "file of torch before 1.6", "safetensors": "safetensors"}
    entry = f", its entry {checkpoint.source!r}" if checkpoint.source else ""
    unfinished = checkpoint.epoch is not None and checkpoint.epoch >= 0
    training = f", training stopped in epoch {checkpoint.epoch}" if unfinished else ""
    tensors = checkpoint.state.values()
    types = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in tensors}))
    lines = [
        f"read {file}: {kinds[checkpoint.kind]}{entry}{training}",
        f"found {done.name} in {done.found} form: {len(tensors)} tensors, all accounted for ({types})",
        f"classes: {_classes(done)}",
    ]
    if done.branches:
        lines.append(f"its head predicts {', '.join(done.branches)}")
    if done.transfer is not None:
        lines.append(
            f"kept {len(done.transfer.taken)} tensors; started anew for {detector.num_classes} classes: "
            f"{_shortened(done.transfer.fresh)}"
        )
    assert detector.metadata is not None
    return [*lines, f"provenance: {detector.metadata.provenance}"]


def _classes(done: ImportedCheckpoint) -> str:
    """Number and names in the file."""
    names = done.checkpoint.class_names
    if not names or done.names_dropped:
        return f"{done.classes_found}, without names"
    return f"{done.classes_found} ({_shortened(names)})"


def _shortened(names: Sequence[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _warnings(done: ImportedCheckpoint) -> list[str]:
    lines = []
    if done.also:
        twins = " and ".join(done.also)
        lines.append(f"{twins} has the same names and shapes as {done.name}; choose with --model")
    if done.activation:
        lines.append(f"the modules in the file use {done.activation}, which {done.name} does not; is --model right?")
    if done.names_dropped:
        lines.append(f"its {len(done.checkpoint.class_names)} class names do not fit its classes and are left out")
    if done.not_finite:
        lines.append(f"{len(done.not_finite)} tensors hold NaN or infinities: {_shortened(done.not_finite)}")
    return lines
