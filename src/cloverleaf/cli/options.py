"""Options that several commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
ImageSize = Annotated[int | None, typer.Option(help="Long side of the network input; default: as trained.", min=1)]
OverlapOfPredictions = Annotated[
    float | None,
    typer.Option(help="NMS threshold: larger keeps more overlapping boxes [0.45].", show_default=False),
]
Classes = Annotated[str | None, typer.Option(help="Only these classes: names or label numbers, separated by commas.")]


def names_in(text: str | None) -> list[str] | None:
    """``"cat, dog"`` as a list; None of None."""
    return None if text is None else [name for part in text.split(",") if (name := part.strip())]
