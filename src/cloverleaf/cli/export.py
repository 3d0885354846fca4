"""`cloverleaf export`: weights to a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from cloverleaf.deploy.export import ExportResult


def export(
    source: Annotated[
        Path | None, typer.Argument(help="Weights file (.safetensors).", metavar="WEIGHTS", show_default=False)
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="The same as an option.", show_default=False)
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="Of the file: onnx.")] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; default: beside the weights.", show_default=False)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square input; default: as trained.", min=1, show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per run.", min=1)] = 1,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Leave number, height and width of the images open.")
    ] = False,
    nms: Annotated[bool, typer.Option("--nms", help="Put the non-maximum suppression inside.")] = False,
    conf: Annotated[
        float | None, typer.Option(help="With --nms: smallest score that is reported [0.25].", show_default=False)
    ] = None,
    iou: Annotated[
        float | None, typer.Option(help="With --nms: larger keeps more overlapping boxes [0.45].", show_default=False)
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="With --nms: at most so many per image [300].", min=1, show_default=False)
    ] = None,
) -> None:
    """Write the folded model for other runtimes, decoding inside, and check it against PyTorch.

    Detectors, also for several tasks, and classifiers. A file that does not compute the same (boxes and scores, or
    probabilities, within 1e-4) is not left behind. predict and val open the file like weights.

    Examples:

        cloverleaf export best.safetensors

        cloverleaf export best.safetensors --dynamic --output best-any-size.onnx

        cloverleaf export best.safetensors --nms --conf 0.3 --image-size 640
    """
    from cloverleaf.deploy.export import export as write

    if (source is None) == (weights is None):
        raise ConfigError("one weights file is needed", "none or two were given", "cloverleaf export best.safetensors")
    if conf is not None or iou is not None or max_detections is not None:
        _need_nms(nms, {"--conf": conf, "--iou": iou, "--max-detections": max_detections})
    result = write(
        source or weights or Path(),
        output,
        format=format,  # type: ignore[arg-type]
        image_size=image_size,
        batch_size=batch_size,
        dynamic=dynamic,
        nms=nms,
        confidence=conf,
        iou=iou,
        max_detections=max_detections,
    )
    _tell(result)


def _need_nms(nms: bool, given: dict[str, float | None]) -> None:
    """Refuse thresholds that nothing would read, by the names of the command line."""
    if not nms:
        names = [name for name, value in given.items() if value is not None]
        raise ConfigError(
            f"{' and '.join(names)} would do nothing",
            "a file without NMS gives all boxes and scores",
            "add --nms, or give them to predict and val",
        )


def _tell(result: ExportResult) -> None:
    """What was written and how far it is from the model."""
    facts, parity = result.metadata, result.parity
    size = f"{facts.image_size}x{facts.image_size}"
    shape = f"any number and size (as trained: {size})" if facts.dynamic else f"{facts.batch_size} x {size}"
    inside = ""
    if facts.suppression is not None:
        chosen = facts.suppression
        inside = f", NMS inside (conf {chosen.confidence:g}, iou {chosen.iou:g}, {chosen.max_detections} detections)"
    megabytes = result.path.stat().st_size / 1e6
    shapes = " and ".join("x".join(map(str, item)) for item in parity.shapes)
    counted = "" if parity.detections is None else f"; {parity.detections} detections, none missing or too many"
    typer.echo(f"{facts.model}, {facts.num_classes} classes, input {shape}{inside}")
    boxes = f"boxes differ by at most {parity.boxes:.1e} of the image side ({parity.pixels:.1e} px), scores by"
    told = "probabilities differ by at most" if facts.task == "classify" else boxes
    if facts.num_tags:
        told = told.replace("scores by", "scores and tags by")
    if parity.embeddings is not None:
        told = f"embeddings differ by at most {parity.embeddings:.1e}, {told}"
    typer.echo(f"checked against PyTorch on {shapes}: {told} {parity.scores:.1e} (allowed: 1e-04){counted}")
    typer.echo(f"wrote {result.path} ({megabytes:.1f} MB) in {result.seconds:.0f} s")
