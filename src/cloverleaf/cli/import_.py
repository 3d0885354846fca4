"""`cloverleaf import`: published checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from cloverleaf.weights.published import ImportedCheckpoint
    from cloverleaf.weights.reader import PublishedCheckpoint


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
    backbone: Annotated[
        bool, typer.Option("--backbone", help="Take only the backbone, for train --backbone-weights (RevCol).")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store float16, which halves the file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Read a published YOLOv7, YOLOR, Gold-YOLO or RevCol checkpoint and write it as Cloverleaf weights.

    Nothing in FILE is executed. Every tensor must be accounted for, or nothing is written. A fused form is for
    inference only; the others can be trained further.

    Examples:

        cloverleaf import yolov7.pt

        cloverleaf import yolov7_training.pt --model yolov7 -o start.safetensors --num-classes 3

        cloverleaf import yolor-p6.pt -o yolor-p6.safetensors

        cloverleaf import gold_s.pt -o gold-yolo-s.safetensors

        cloverleaf import revcol_tiny_1k.pth --form deploy -o revcol-tiny.safetensors

        cloverleaf import cascade_mask_rcnn_revcol.pth --backbone -o backbone.safetensors

        cloverleaf import yolov7-w6_training.pt --form fused --half -o yolov7-w6.safetensors
    """
    from cloverleaf.weights.format import save
    from cloverleaf.weights.published import import_checkpoint

    target = _target(file, output, force)
    if backbone:
        _check_alone({"--model": model, "--form": form, "--num-classes": num_classes})
        _import_backbone(file, target, half)
        return
    done = import_checkpoint(file, model, form=form.value if form is not None else None, num_classes=num_classes)
    for line in _report(file, done):
        typer.echo(line)
    for line in _warnings(done):
        typer.echo(f"warning: {line}", err=True)
    save(done.detector, target, half=half)
    typer.echo(f"{done.detector.spec.form} form in {target} ({target.stat().st_size / 1e6:.1f} MB)")


def _check_alone(options: Mapping[str, object]) -> None:
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise ConfigError(
            f"{given} with --backbone", "a backbone has no forms and no classes, and its size follows from the file",
            f"leave {given} out",
        )  # fmt: skip


def _import_backbone(file: Path, target: Path, half: bool) -> None:
    from cloverleaf.weights.backbone import describe, save_backbone
    from cloverleaf.weights.published_backbone import import_backbone

    done = import_backbone(file)
    left = sum(done.left_out.values())
    typer.echo(_read_line(file, done.checkpoint))
    typer.echo(f"found {describe(done.spec)}: {len(done.checkpoint.state) - left} tensors, all accounted for")
    if left:
        parts = ", ".join(f"{name} ({count})" for name, count in done.left_out.items())
        typer.echo(f"left out {left} tensors that are not of the backbone: {parts}")
    typer.echo(f"it has learned from images as {done.metadata.normalisation}")
    typer.echo(f"provenance: {done.metadata.provenance}")
    if done.not_finite:
        typer.echo(f"warning: {_not_finite(done.not_finite)}", err=True)
    save_backbone(target, done.backbone, done.metadata, half=half)
    typer.echo(f"backbone in {target} ({target.stat().st_size / 1e6:.1f} MB), for cloverleaf train --backbone-weights")


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
    tensors = checkpoint.state.values()
    types = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in tensors}))
    lines = [
        _read_line(file, checkpoint),
        f"found {done.name} in {done.found} form: {len(tensors)} tensors, all accounted for ({types})",
        f"classes: {_classes(done)}",
    ]
    if done.branches:
        lines.append(f"its head predicts {', '.join(done.branches)}")
    lines += done.notes
    if done.transfer is not None:
        lines.append(
            f"kept {len(done.transfer.taken)} tensors; started anew for {detector.num_classes} classes: "
            f"{_shortened(done.transfer.fresh)}"
        )
    assert detector.metadata is not None
    return [*lines, f"provenance: {detector.metadata.provenance}"]


def _read_line(file: Path, checkpoint: PublishedCheckpoint) -> str:
    kinds = {"zip": "zip archive of torch", "legacy": "file of torch before 1.6", "safetensors": "safetensors"}
    entry = f", its entry {checkpoint.source!r}" if checkpoint.source else ""
    unfinished = checkpoint.epoch is not None and checkpoint.epoch >= 0
    training = f", training stopped in epoch {checkpoint.epoch}" if unfinished else ""
    return f"read {file}: {kinds[checkpoint.kind]}{entry}{training}"


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
        lines.append(_not_finite(done.not_finite))
    return lines


def _not_finite(names: Sequence[str]) -> str:
    return f"{len(names)} tensors hold NaN or infinities: {_shortened(names)}"
