"""`cloverleaf predict`: find objects, tags, or the classes of pixels or whole images, in images and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloverleaf.cli.options import Classes, Device, ImageSize, OverlapOfPredictions, names_in


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images, videos, folders (not deeper) or quoted globs (** goes deeper).",
            metavar="SOURCE",
            show_default=False,
        ),
    ],
    weights: Annotated[
        Path,
        typer.Option("--weights", "-w", help="Weights (.safetensors) or exported file (.onnx).", show_default=False),
    ],
    conf: Annotated[
        float | None,
        typer.Option(help="Smallest score that is reported [0.25; 0.5 of objects with masks].", show_default=False),
    ] = None,
    iou: OverlapOfPredictions = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    max_detections: Annotated[
        int | None, typer.Option(help="At most so many per image [300].", min=1, show_default=False)
    ] = None,
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Boxes suppress those of other classes too.")
    ] = False,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; default: a new runs/predict.")
    ] = None,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write annotated pictures and videos.")] = True,
    save_json: Annotated[bool, typer.Option("--save-json", help="Write the detections as JSON.")] = False,
    save_crops: Annotated[bool, typer.Option("--save-crops", help="Write every detection as a picture.")] = False,
    save_embeddings: Annotated[
        bool, typer.Option("--save-embeddings", help="With --save-json: their embeddings as .npz, row for row.")
    ] = False,
) -> None:
    """Find objects, or the classes of pixels or whole images, in images, folders, globs and videos.

    What is drawn and written follows from the weights: boxes, perhaps with tags of the image, objects with masks (JSON
    has COCO run lengths), label maps, which are also written as PNG under labels/, or the five likeliest classes of
    each image.

    A file that cannot be read is reported and the rest go on; the exit code is 1 only when nothing could be read. An
    exported file with NMS inside has its own --conf, --iou and --max-detections.

    Examples:

        cloverleaf predict --weights best.safetensors photo.jpg

        cloverleaf predict -w best.safetensors 'photos/**/*.jpg' clip.mp4 --conf 0.4 --classes cat,dog --save-json
    """
    from cloverleaf.errors import ConfigError
    from cloverleaf.predict.job import SaveOptions, describe, run_job
    from cloverleaf.predict.predictor import Predictor
    from cloverleaf.predict.results import ResultFolder, make_folder, new_folder
    from cloverleaf.predict.sources import find_sources

    predictor = Predictor(
        weights,
        confidence=conf,
        iou=iou,
        image_size=image_size,
        device=device,
        classes=names_in(classes),
        max_detections=max_detections,
        class_agnostic=class_agnostic,
    )
    if save_crops and predictor.task in ("semantic", "classify"):
        raise ConfigError("--save-crops has no effect", f"{weights} finds no single objects", "leave it out")
    if save_embeddings and not predictor.engine.info.embedding_strides:
        raise ConfigError("--save-embeddings has no effect", f"{weights} gives no embeddings", "leave it out")
    if save_embeddings and not save_json:
        raise ConfigError(
            "--save-embeddings alone would be of no use", "its rows are those of the detections in the JSON",
            "add --save-json",
        )  # fmt: skip
    found = find_sources(sources)
    folder = None
    if save or save_json or save_crops:
        made = make_folder(output) if output is not None else new_folder(Path("runs/predict"))
        folder = ResultFolder(made, [*found.images, *found.videos])
    summary = run_job(predictor, found, folder, SaveOptions(save, save_crops, save_json, save_embeddings), typer.echo)

    looked = summary.images + summary.frames
    counted = ((summary.images, "image"), (summary.videos, "video"))
    parts = [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted if count]
    if looked:
        typer.echo(f"{' and '.join(parts)}: {describe(summary.counts)}; {summary.milliseconds / looked:.1f} ms each")
    if folder is not None and looked:
        typer.echo(f"results in {folder.folder}")
    if summary.unreadable:
        count = len(summary.unreadable)
        typer.echo(f"{count} source{'' if count == 1 else 's'} could not be read:", err=True)
        for item in summary.unreadable:
            typer.echo(f"  {item}", err=True)
    if not looked:
        raise typer.Exit(1)
