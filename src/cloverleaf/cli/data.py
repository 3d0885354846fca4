"""`cloverleaf data`: make, check, look at and convert datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make, check, look at and convert datasets.")

Source = Annotated[str, typer.Argument(help="A data.yaml, a COCO JSON or a folder (COCO, YOLO, VOC, train/CLASS).")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split; repeat for several.")]


@app.command(epilog="Example: cloverleaf data check my-images --json check.json")
def check(
    source: Source,
    split: Splits = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write every finding to this file.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Places shown for each kind of finding.")] = 3,
    workers: Annotated[int, typer.Option(min=-1, help="Threads that decode images; -1: the CPUs at hand.")] = -1,
) -> None:
    """Look for faults in labels and images; exit code 1 if there are errors."""
    from rich.console import Console

    from cloverleaf import atomic
    from cloverleaf.data.check import check_dataset

    report = check_dataset(source, split, workers=workers)
    report.print(Console(), examples=examples)
    if json_file is not None:
        atomic.write_json(json_file, report.to_json(), indent=1)
    if report.verdict == "errors":
        raise typer.Exit(1)


@app.command(epilog="Example: cloverleaf data stats my-images --output stats")
def stats(
    source: Source,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and stats.json.")] = Path("data-stats"),
    split: Splits = None,
) -> None:
    """Draw class counts, box sizes and shapes, and a contact sheet of labelled images."""
    from rich.console import Console

    from cloverleaf.data.stats import write_stats

    result = write_stats(source, output, split)
    result.print(Console())


@app.command(epilog="Example: cloverleaf data convert my-voc-images --to yolo --output my-yolo-images")
def convert(
    source: Source,
    to: Annotated[str, typer.Option(help="coco, yolo, voc, or class-folders: every object cut out, to classify.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    copy_images: Annotated[
        bool, typer.Option("--copy-images/--link", help="Copy the image files, or make symbolic links.")
    ] = True,
    segments: Annotated[
        bool | None,
        typer.Option("--segments/--boxes", help="YOLO: write outlines or boxes; by default whichever loses nothing."),
    ] = None,
    split: Splits = None,
) -> None:
    """Write a dataset in another format and say what that format cannot carry.

    As class-folders every object becomes an image below SPLIT/CLASS/, for train --task classify.
    """
    from cloverleaf.data.convert import convert_dataset

    report = convert_dataset(source, to, output, copy_images=copy_images, segments=segments, splits=split)
    for name, count in report.images.items():
        typer.echo(f"{name}: {count:,} images, {report.objects[name]:,} objects")
    for what, count in report.lost.items():
        typer.echo(f"not carried over: {count:,} {what}")
    typer.echo(f"use it with --data {report.path}")


@app.command(epilog="Examples: cloverleaf data make shapes -o data/shapes; cloverleaf data make clips -o data/clips")
def make(
    name: Annotated[str, typer.Argument(help="What to draw: shapes (images) or clips (videos).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write; default: data/NAME.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same.")] = 0,
    images: Annotated[
        int, typer.Option(min=1, help="Images over all splits; of clips, of the set whose individuals they show.")
    ] = 600,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 320,
    clips: Annotated[int | None, typer.Option(min=1, help="Videos [3].", show_default=False)] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Frames of each video, 25 a second [60].", show_default=False)
    ] = None,
) -> None:
    """Draw an embedded dataset, or videos in which its individuals move, from a seed.

    A model trained on the shapes of a seed knows the individuals in the clips of the same seed (and --images).
    """
    from cloverleaf.errors import ConfigError, suggest

    if name not in ("shapes", "clips"):
        raise ConfigError(what=f"no embedded dataset {name!r}", fix=suggest(name, ["shapes", "clips"]))
    if name == "shapes" and (clips is not None or frames is not None):
        raise ConfigError("--clips and --frames have no effect on shapes", "they are images", "leave them out")
    from cloverleaf.data.procedural import make_clips, make_shapes

    folder = Path("data") / name if output is None else output
    if name == "clips":
        count, length = 3 if clips is None else clips, 60 if frames is None else frames
        make_clips(folder, seed=seed, clips=count, frames=length, size=size, images=images)
        typer.echo(f"{count} clip{'' if count == 1 else 's'} in {folder}; use them with cloverleaf track")
        return
    path = make_shapes(folder, seed=seed, images=images, size=size)
    typer.echo(f"{images} image{'' if images == 1 else 's'} in {folder}; use it with --data {path}")
