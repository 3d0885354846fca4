"""Folders that are known to be ours by a file that says what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloverleaf import atomic
from cloverleaf.errors import DataError


def holds(output: Path, marker: str, parameters: Mapping[str, Any], own: Sequence[str]) -> bool:
    """True if the folder already is what these parameters make; clears an older one of ours.

    Args:
        output: the folder; it need not exist.
        marker: name of the file that marks folders of this kind.
        parameters: what decides every byte.
        own: patterns of the files that are removed from an older or unfinished one.

    Raises:
        DataError: ``output`` is a file, or holds something that was not made here.
    """
    if output.is_file():
        raise DataError(f"{output} is a file", "the dataset needs a folder", "name another one")
    if not output.is_dir() or not any(output.iterdir()):
        return False
    found = _read(output / marker)
    if found is None:
        raise DataError(
            f"{output} is not empty",
            f"it has no {marker}, so it was not made by `data make`",
            "name a new or empty folder",
        )
    if found == {"parameters": dict(parameters), "complete": True}:
        return True
    for pattern in own:
        for path in output.glob(pattern):
            path.unlink()
    return False


def mark(output: Path, marker: str, parameters: Mapping[str, Any], *, complete: bool) -> None:
    """Write the marker; an unfinished folder is known by ``complete`` being False."""
    atomic.write_json(output / marker, {"parameters": dict(parameters), "complete": complete}, indent=2)


def _read(path: Path) -> dict[str, Any] | None:
    """The marker's content; None where there is none, an empty dict where it cannot be read."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
