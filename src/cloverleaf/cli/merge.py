"""`cloverleaf merge`: average the weights of several models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloverleaf.cli.options import Device
from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from cloverleaf.models.detector import Detector


def merge(
    files: Annotated[
        list[str],
        typer.Argument(help="Weights files (.safetensors) of one model.", metavar="WEIGHTS...", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", show_default=False)],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights", metavar="NUMBERS", help="One per file, such as 0.5,0.3,0.2 in any scale; default: all alike."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Recompute BatchNorm on this: data.yaml, COCO JSON or folder.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="config.yaml whose augmentation the images get; default: that of the first file's run."),
    ] = None,
    split: Annotated[str, typer.Option(help="Whose images are used.")] = "train",
    images: Annotated[int, typer.Option(min=1, help="At most so many of them.")] = 512,
    image_size: Annotated[int | None, typer.Option(min=32, help="Side of the input; default: as trained.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step; best as in training.")] = 16,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=-1, help="Loader processes; -1 chooses.")] = -1,
) -> None:
    """Average the weights of several models, or of one model at several epochs, into one.

    All must be of one model with the same classes and anchors, and have started from the same weights: independently
    initialised ones do not average into anything useful. Give --data, so that the BatchNorm statistics fit the result.

    Examples:

        cloverleaf merge a.safetensors b.safetensors --data data.yaml -o merged.safetensors

        cloverleaf merge a.safetensors b.safetensors c.safetensors --weights 0.5 0.3 0.2 -d coco/ -o merged.safetensors

        cloverleaf merge runs/train/weights/epoch-*.safetensors -d data.yaml -o averaged.safetensors
    """
    from cloverleaf.weights.format import save
    from cloverleaf.weights.merge import merge as average

    paths, numbers = _separate(files, weights)
    if output.exists():
        raise ConfigError(f"--output {output} is there already", "weights are never overwritten", "choose another name")
    output.parent.mkdir(parents=True, exist_ok=True)  # now, and not after the work
    model = average(paths, weights=numbers)
    assert model.metadata is not None
    for path, share in model.metadata.parents.items():
        typer.echo(f"{share:6.1%}  {path}")
    if data is not None:
        typer.echo(_recalibrate(model, data, split, images, image_size, batch_size, device, workers, config))
    elif note := _note(model):
        typer.echo(note, err=True)
    save(model, output)
    typer.echo(f"merged weights in {output}")


def _separate(words: list[str], weights: list[str] | None) -> tuple[list[str], list[float] | None]:
    """Files and weights: `--weights 0.5 0.3` leaves all numbers but the first among the files."""
    if weights is None:
        return words, None
    files = [word for word in words if Path(word).exists() or not _is_number(word)]
    numbers = [part for text in weights for part in text.split(",")] + [word for word in words if word not in files]
    if wrong := [text for text in numbers if not _is_number(text)]:
        raise ConfigError(f"--weights {wrong[0]!r} is not a number", "", "write e.g. --weights 0.5,0.3,0.2")
    return files, [float(text) for text in numbers]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _recalibrate(
    model: Detector,
    data: str,
    split: str,
    images: int,
    image_size: int | None,
    batch_size: int,
    device: str,
    workers: int,
    config: Path | None,
) -> str:
    """Recompute the statistics of ``model`` and note it in its metadata; what to tell."""
    from dataclasses import replace

    from cloverleaf.data.config import DataConfig
    from cloverleaf.data.source import open_index
    from cloverleaf.predict.device import resolve_device
    from cloverleaf.predict.model import image_size_of
    from cloverleaf.training.config_io import read_config
    from cloverleaf.training.recalibrate import augmentation_of, recalibrate

    assert model.metadata is not None
    beside = Path(next(iter(model.metadata.parents))).parent.parent / "config.yaml"  # RUN/weights/best.safetensors
    config = config or (beside if beside.is_file() else None)
    augment = augmentation_of(read_config(config)) if config is not None else None
    settings = DataConfig(image_size=image_size or image_size_of(model), batch_size=batch_size, workers=workers)
    target = resolve_device(device)
    seen = recalibrate(model, open_index(data, split), settings, augment=augment, images=images, device=target)
    if not seen:
        return "the model has no BatchNorm; there is nothing to recompute"
    how = f"augmented as in {config}" if config is not None else "not augmented"
    text = f"recomputed on {seen} images of {data}, split {split}, {how}"
    model.metadata = replace(model.metadata, image_size=settings.image_size, statistics=text)
    advice = (
        ""
        if config is not None
        else f"\nno config.yaml at {beside.parent}: better name that of the training with --config"
    )
    return f"BatchNorm statistics {text}, at {settings.image_size} px{advice}"


def _note(model: Detector) -> str:
    from cloverleaf.training.recalibrate import statistics_of

    if not statistics_of(model):
        return ""
    return (
        "note: BatchNorm statistics are the average of the files'. They are not those of the averaged network, which "
        "may find little until they are recomputed: give --data DATA"
    )
