"""`cloverleaf models`: the catalog."""

from __future__ import annotations

from typing import Annotated

import typer

from cloverleaf.errors import UnknownModelError, suggest


def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, quoted.", metavar="[PATTERN]")] = "*",
) -> None:
    """List the models with their size and cost.

    Any composition BACKBONE+NECK+HEAD of the listed parts is a model too.

    Examples:

        cloverleaf models

        cloverleaf models "yolov7*"
    """
    from rich.console import Console
    from rich.table import Table

    from cloverleaf.models.catalog import MODELS, list_models
    from cloverleaf.models.cost import measure
    from cloverleaf.models.parts import PRESETS, TABLES

    names = list_models(pattern)
    if not names:
        raise UnknownModelError(f"no model matches {pattern!r}", "the catalog has none", suggest(pattern, MODELS))
    table = Table(title="Published classes (80, classifiers 1000), deploy form; GFLOPs: 2 x multiply-accumulates")
    for column in ("name", "parameters", "GFLOPs", "at pixels", "description"):
        table.add_column(column, justify="left" if column in ("name", "description") else "right")
    for name in names:
        variant = MODELS[name]
        cost = measure(variant.spec.as_deployed(), (variant.image_size, variant.image_size))
        row = (f"{cost.params / 1e6:.2f} M", f"{cost.flops / 1e9:.2f}", str(variant.image_size), variant.description)
        table.add_row(name, *row)
    console = Console()
    console.print(table)
    for part, parts in TABLES.items():
        known = sorted({*parts, *PRESETS.get(part, {})})
        shown = ("timm/NAME (any convolutional model of timm)" if name == "timm" else name for name in known)
        console.print(f"{part}s: {', '.join(shown)}", highlight=False)
