"""`cloverleaf track`: follow objects through videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloverleaf.cli.options import Classes, Device, ImageSize, OverlapOfPredictions, names_in


def track(
    sources: Annotated[
        list[str],
        typer.Argument(help="Videos, or folders with the frames of one video.", metavar="VIDEO", show_default=False),
    ],
    weights: Annotated[
        Path,
        typer.Option("--weights", "-w", help="Weights (.safetensors) or exported file (.onnx).", show_default=False),
    ],
    conf: Annotated[
        float | None,
        typer.Option(help="Smallest score that may continue a track [0.1].", show_default=False),
    ] = None,
    start: Annotated[float, typer.Option(help="Smallest score that may begin a track.")] = 0.4,
    appearance: Annotated[
        str,
        typer.Option(help="How much embeddings count beside motion: auto (0.4 where the model has them), off, 0 to 1."),
    ] = "auto",
    memory: Annotated[
        float | None,
        typer.Option(help="Seconds for which a lost track is remembered [1; 20 with embeddings].", show_default=False),
    ] = None,
    across_classes: Annotated[
        bool,
        typer.Option(
            "--across-classes",
            help="Objects have one box, tracks may change their class, truth is compared without classes.",
        ),
    ] = False,
    iou: OverlapOfPredictions = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    device: Device = "auto",
    truth: Annotated[
        list[Path] | None,
        typer.Option(help="Who is where, in MOT format, to score the tracks; once per video.", show_default=False),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of folders [25, or seqinfo.ini's].", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; default: a new runs/track.")
    ] = None,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write annotated videos.")] = True,
    save_json: Annotated[bool, typer.Option("--save-json", help="Write tracks and frame times as JSON.")] = False,
) -> None:
    """Follow objects through videos: the same individual keeps its number.

    Any detector is followed by motion. A model with embeddings (train --task multi) is followed by motion and
    appearance, so that individuals keep their numbers when they cross, hide or come back.

    Of each video a text file in MOT format is written (frame and id from 1, left, top, width, height, score, class,
    visibility), besides the annotated video; with --truth also HOTA, MOTA and IDF1. A video that cannot be read is
    reported, leaves no file, and the rest go on; the exit code is 1 only when none could be read.

    Examples:

        cloverleaf track --weights best.safetensors clip.mp4

        cloverleaf track -w best.safetensors clips/clip-01/clip-01.mp4 --truth clips/clip-01/gt/gt.txt --save-json
    """
    from cloverleaf.predict.results import results_in
    from cloverleaf.tracking.extras import require_trackers
    from cloverleaf.tracking.job import TrackJob, run_tracks
    from cloverleaf.tracking.options import TrackOptions
    from cloverleaf.tracking.setup import parse_appearance, tracking_predictor
    from cloverleaf.tracking.table import print_scores

    require_trackers()
    weight, needed = parse_appearance(appearance)
    options = TrackOptions(start=start, appearance=weight, memory=memory, across_classes=across_classes)
    predictor = tracking_predictor(
        weights,
        confidence=conf,
        iou=iou,
        image_size=image_size,
        device=device,
        classes=names_in(classes),
        across_classes=across_classes,
    )
    with results_in(output, Path("runs/track")) as folder:
        job = TrackJob(folder, options, save, save_json, fps, tuple(truth or ()), needed)
        outcome = run_tracks(predictor, sources, job, typer.echo)

    if outcome.scores:
        print_scores(outcome.scores)
    if outcome.done:
        typer.echo(f"results in {folder}")
    if outcome.unreadable:
        count = len(outcome.unreadable)
        typer.echo(f"{count} source{'' if count == 1 else 's'} could not be tracked:", err=True)
        for item in outcome.unreadable:
            typer.echo(f"  {item}", err=True)
    if not outcome.done:
        raise typer.Exit(1)
