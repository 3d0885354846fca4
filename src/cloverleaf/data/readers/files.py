"""Folders and files as readers need them: cheap existence tests, fingerprints, image sizes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cloverleaf.data.records import IMAGE_SUFFIXES


class Listing:
    """Answers "does this file exist" from one listing per folder instead of one system call per file."""

    def __init__(self) -> None:
        self._folders: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """Names of the entries of a folder; empty if there is no such folder."""
        known = self._folders.get(folder)
        if known is None:
            known = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()  # noqa: PTH208, PTH112
            self._folders[folder] = known
        return known

    def __contains__(self, path: Path | str) -> bool:
        folder, name = os.path.split(path)
        return name in self.names(folder)


def image_files(folder: Path) -> list[Path]:
    """Every image file under a folder, sorted by path."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(
            Path(parent, name)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122
        )
    return sorted(found)


def has_images(folder: Path) -> bool:
    """Whether a folder directly holds an image file."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def stamps(paths: Iterable[Path]) -> Iterator[bytes]:
    """Size and modification time of each existing path."""
    for path in paths:
        if path.exists():
            stat = path.stat()
            size = 0 if path.is_dir() else stat.st_size
            yield f"{path}\0{size}\0{stat.st_mtime_ns}\n".encode()


def folder_stamps(folder: Path | str, suffix: str = "") -> Iterator[bytes]:
    """Times of a folder and those below, and name, size and time of each file with the suffix, in a fixed order.

    One pass over each listing; with no suffix files are not looked at, which is several times faster.
    """
    yield f"{folder}\0{os.stat(folder).st_mtime_ns}\n".encode(errors="surrogateescape")  # noqa: PTH116
    rows, below = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if suffix and name.endswith(suffix):
                stat = entry.stat()
                rows.append(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n")
            elif entry.is_dir() and not name.startswith("."):
                below.append(entry.path)
    rows.sort()
    yield "".join(rows).encode(errors="surrogateescape")
    for path in sorted(below):
        yield from folder_stamps(path, suffix)


def digest(parts: Iterable[bytes]) -> str:
    """A short hash of some bytes."""
    total = hashlib.blake2b(digest_size=12)
    for part in parts:
        total.update(part)
    return total.hexdigest()
