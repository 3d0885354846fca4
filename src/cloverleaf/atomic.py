"""Files that appear whole or not at all: a crash while writing leaves what was there before."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``: a file made under it becomes ``path`` when the block ends, and is removed when
    the block raises.

    Missing folders are made.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened to be flushed
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove temporary files below ``folder`` that a process left when it was killed; none may be writing there.

    Returns:
        What was removed.
    """
    left = [path for path in folder.rglob(".*.tmp") if _LEFTOVER.fullmatch(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def write_new(path: Path, content: bytes) -> None:
    """Write ``content`` to a file that must not exist, and flush it to the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` under a temporary name beside ``path``, flush it to the disk and move it into place.

    Missing folders are made.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is as it was.
    """
    with staged(path) as temporary:
        write_new(temporary, content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 with its line ends as they are; otherwise as `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = None) -> None:
    """Write strict JSON as UTF-8; otherwise as `write_bytes`.

    Raises:
        ValueError: ``content`` holds NaN or an infinity, which JSON does not know.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False, ensure_ascii=False))
