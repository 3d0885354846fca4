"""Where indexes are kept: written once, whole or not at all, and found again by a fingerprint of their sources."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.index import ARRAYS, META, SCHEMA, DetectionIndex
from cloverleaf.errors import DataError

FOLDER = ".cloverleaf-index"
_KEEP = 3  # versions of one split that stay, for processes that still have an older one open

logger = logging.getLogger(__name__)


def cache_folder(root: Path, cache_dir: Path | None) -> Path:
    """A writable folder for indexes: the given one, beside the dataset, or the user's cache."""
    if cache_dir is not None:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        return Path(cache_dir)
    base = os.environ.get("XDG_CACHE_HOME")
    user_cache = (Path(base) if base else Path.home() / ".cache") / "cloverleaf" / "index"
    for folder in (root / FOLDER, user_cache, Path(tempfile.gettempdir()) / f"cloverleaf-index-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise DataError(
        what="there is no folder to keep the dataset's index in",
        why=f"neither {root} nor {user_cache} nor the temporary folder can be written",
        fix="pass a cache folder, or set XDG_CACHE_HOME to one that can be written",
    )


def find_index(directory: Path) -> DetectionIndex | None:
    """The index in that folder; None if there is none, or a damaged one, which is moved out of the way."""
    if not directory.is_dir():
        return None
    try:
        return DetectionIndex(directory)
    except DataError as error:
        logger.warning("the dataset index cannot be used and is built again: %s", error)
        broken = directory.with_name(f"{directory.name}.broken-{uuid.uuid4().hex[:8]}")
        try:
            directory.rename(broken)
        except OSError:  # another process was quicker
            return None
        shutil.rmtree(broken, ignore_errors=True)
        return None


def write_index(
    directory: Path, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any], *, keep: int = _KEEP
) -> DetectionIndex:
    """Write an index under a temporary name and move it into place; of two writers the first wins.

    Args:
        directory: final folder; its name is the split's key, a dash, and the fingerprint.
        arrays: all of `ARRAYS`; converted to their types.
        meta: names, category_ids, tag_names, tag_ids, split, format, source, fingerprint, has_identities, removed.
    """
    missing = ARRAYS.keys() - arrays.keys()
    assert not missing, f"arrays missing: {missing}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory.parent))
    try:
        shapes = {}
        for name, (dtype, trailing) in ARRAYS.items():
            array = np.ascontiguousarray(arrays[name], dtype=dtype).reshape(-1, *trailing)
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
            shapes[name] = list(array.shape)
        content = {"schema": SCHEMA, "shapes": shapes, **meta}
        (partial / META).write_text(json.dumps(content, indent=1), encoding="utf-8")
        try:
            partial.rename(directory)
        except OSError:
            if not (directory / META).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _forget_old(directory, keep)
    return DetectionIndex(directory)


def _forget_old(directory: Path, keep: int) -> None:
    """Remove all but the newest versions of the same split, with what other parts keep beside them (image caches)."""
    key = directory.name.rpartition("-")[0]
    found = (entry for entry in directory.parent.glob(f"{key}-*") if entry.is_dir() and "." not in entry.name)
    versions = sorted(found, key=lambda entry: (entry == directory, entry.stat().st_mtime), reverse=True)
    for old in versions[keep:]:
        shutil.rmtree(old, ignore_errors=True)
        for beside in directory.parent.glob(f"{old.name}.*"):
            if beside.is_file():
                beside.unlink(missing_ok=True)
