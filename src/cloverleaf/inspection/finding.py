"""What an inspection is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloverleaf.inspection.subject import InspectOptions, Subject


@dataclass(frozen=True, slots=True)
class Table:
    """A few numbers for the terminal.

    Attributes:
        title: what they are.
        columns: heads, the first of the names of the rows.
        rows: texts.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one inspection found.

    Attributes:
        notes: sentences that say what the numbers mean for this model.
        facts: plain containers for ``inspect.json``.
        tables: for the terminal.
        pictures: files that were written.
    """

    notes: tuple[str, ...]
    facts: dict[str, Any]
    tables: tuple[Table, ...] = ()
    pictures: tuple[Path, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Inspection:
    """One kind of inspection: a module of this package with these two functions, listed in `run.INSPECTIONS`.

    Attributes:
        refusal: why it does not apply to a model or these images, and what it is for; None where it applies.
        run: does it; pictures go to the folder, sentences about the progress to the callable.
        needs_images: whether it has nothing to show without images.
    """

    refusal: Callable[[Subject, InspectOptions], str | None]
    run: Callable[[Subject, InspectOptions, Path, Callable[[str], None]], Finding]
    needs_images: bool = True
