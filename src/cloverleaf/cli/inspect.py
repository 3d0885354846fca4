"""`cloverleaf inspect`: what a model has learned and what it keeps of its input, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cloverleaf.cli.options import Device, names_in


def inspect(
    model: Annotated[
        str, typer.Argument(help="Weights, or the name of a model, which is fresh then.", metavar="WEIGHTS|MODEL")
    ],
    images: Annotated[
        list[str] | None,
        typer.Option("--images", "-i", help="Image, folder or quoted glob; may be repeated. implicit needs none."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the pictures; default: a new runs/inspect.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Kinds, separated by commas: inversion, decoder, similarity, implicit; default: all."),
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the square cut from every image, in pixels.", min=32)] = 128,
    max_images: Annotated[int, typer.Option(help="At most so many images, evenly chosen.", min=1)] = 64,
    fit_decoder: Annotated[
        int | None,
        typer.Option(help="Steps of fitting decoders; default: 300 where the weights hold none.", min=1),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Weights or model whose coarsest map is decoded in the same way.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of fresh models and of decoders.", min=0)] = 0,
) -> None:
    """Look into a model: what it has learned, what it keeps of the image, and how alike its maps are.

    Writes pictures and inspect.json. Inversion (RevCol only): the image and every earlier column from the last column.
    Decoder: the image as drawn from coarsest maps. Similarity: CKA of all columns, levels and the pixels.
    Implicit (models with such knowledge): what was learned and what it means in pixels; with images, what features
    it changes and how.

    Examples:

        cloverleaf inspect runs/train/weights/best.safetensors --images photos/

        cloverleaf inspect revcol-tiny+fpn+dense --images photo.jpg --only inversion

        cloverleaf inspect runs/train/weights/best.safetensors --only implicit

        cloverleaf inspect best.safetensors --images photos/ --compare yolov7-tiny.safetensors --fit-decoder 1000
    """
    from rich.console import Console
    from rich.table import Table

    from cloverleaf.inspection import InspectOptions
    from cloverleaf.inspection import inspect as look

    kinds = names_in(only)
    options = InspectOptions(
        only=None if kinds is None else tuple(kinds), image_size=image_size, max_images=max_images,
        fit_decoder=fit_decoder, compare=compare, device=device, seed=seed,
    )  # fmt: skip
    result = look(model, images or [], output, options, typer.echo)
    console = Console()
    for finding in result.findings.values():
        for numbers in finding.tables:
            table = Table(title=numbers.title)
            for k, head in enumerate(numbers.columns):
                table.add_column(head, justify="left" if k == 0 else "right")
            for row in numbers.rows:
                table.add_row(*row)
            console.print(table)
        for note in finding.notes:
            typer.echo(note)
    for kind, reason in result.left_out.items():
        typer.echo(f"{kind}: left out, {reason}")
    typer.echo(f"results in {result.folder}")
