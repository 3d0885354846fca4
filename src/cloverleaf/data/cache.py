"""Decoded, resized images in memory or in one memory-mapped file; the size is stated before anything is filled."""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cloverleaf.data.cpus import local_processes, usable_cpus
from cloverleaf.data.image_io import read_resized
from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import ConfigError, ImageError

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_SPARE = 0.9  # share of the free memory or disk that a cache may take
_BLOCK = 256


class ImageCache:
    """The images of an index, their longer side scaled to one size, as uint8 RGB.

    Worker processes share it: memory is mapped before they are forked, a file is mapped by each.

    Args:
        index: the images.
        long_side: pixels of the longer side.
        kind: "ram" or "disk"; the file lies beside the index and is found again by the next run.
        area: shrink by area averaging (evaluation) instead of bilinear sampling (training).

    Raises:
        ConfigError: it would not fit into the free memory or onto the disk.
    """

    def __init__(self, index: DetectionIndex, long_side: int, kind: Literal["ram", "disk"], *, area: bool) -> None:
        self.index, self.long_side, self.kind, self.area = index, long_side, kind, area
        sizes = index.sizes_hw.astype(np.int64)
        scaled = (sizes * (long_side / sizes.max(axis=1, keepdims=True))).astype(np.int64).clip(1)
        self._shapes = scaled
        self._offsets = np.concatenate([[0], np.cumsum(scaled.prod(axis=1) * 3)])
        self._filled = np.zeros(0, np.uint8)
        self._bytes: npt.NDArray[np.uint8] = self._filled
        if kind == "disk":
            self._open_file()
        else:
            self._fill_memory()

    @property
    def num_bytes(self) -> int:
        """Size of the pixels."""
        return int(self._offsets[-1])

    def get(self, i: int) -> npt.NDArray[np.uint8] | None:
        """Image ``i``, read-only; None where the file could not be read when the cache was filled."""
        if not self._filled[i]:
            return None
        height, width = self._shapes[i].tolist()
        start = int(self._offsets[i])
        view = self._bytes[start : start + height * width * 3].reshape(height, width, 3)
        view.flags.writeable = False
        return view

    def _fill_memory(self) -> None:
        free = _available_memory()
        self._state(f"{free / _MIB:,.0f} MiB of memory are free")
        if free and self.num_bytes * local_processes() > _SPARE * free:  # each process fills its own
            raise ConfigError(
                f"the image cache needs {self.num_bytes / _MIB:,.0f} MiB", f"{free / _MIB:,.0f} MiB of memory are free",
                'use data.cache="disk" or "none"',
            )  # fmt: skip
        self._bytes = np.frombuffer(mmap.mmap(-1, max(1, self.num_bytes)), np.uint8)
        self._filled = np.zeros(len(self.index), np.uint8)
        self._fill()

    def _open_file(self) -> None:
        prefix = f"{self.index.directory.name}.images-{self.long_side}{'-area' if self.area else ''}."
        path = self.index.directory.parent / f"{prefix}{self._signature()}"
        total = self.num_bytes + len(self.index)
        if not (path.is_file() and path.stat().st_size == total):
            for outdated in set(path.parent.glob(f"{prefix}*")) - {path}:
                outdated.unlink(missing_ok=True)
            free = shutil.disk_usage(path.parent).free
            self._state(f"{free / _MIB:,.0f} MiB of the disk are free; file {path}")
            if total > _SPARE * free:
                raise ConfigError(
                    f"the image cache needs {total / _MIB:,.0f} MiB", f"{free / _MIB:,.0f} MiB of the disk are free",
                    'use data.cache="none", or keep the index on a larger disk',
                )  # fmt: skip
            partial = path.with_name(f"{self.index.directory.name}.{os.getpid()}.partial")
            try:
                self._map_file(np.memmap(partial, np.uint8, "w+", shape=(total,)))
                self._fill()
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self._map_file(np.memmap(path, np.uint8, "r", shape=(total,)))

    def _signature(self) -> str:
        """Changes when an image file does (size or time of change)."""
        digest = hashlib.blake2b(digest_size=8)
        for i in range(len(self.index)):
            try:
                facts = os.stat(self.index.image_path(i))  # noqa: PTH116  # a million of them: no Path methods
                digest.update(b"%d %d\n" % (facts.st_mtime_ns, facts.st_size))
            except OSError:
                digest.update(b"missing\n")
        return digest.hexdigest()

    def _map_file(self, whole: npt.NDArray[np.uint8]) -> None:
        plain = whole.view(np.ndarray)  # slices of a memmap are slow to make
        self._bytes, self._filled = plain[: self.num_bytes], plain[self.num_bytes :]

    def _state(self, free: str) -> None:
        size = self.num_bytes / _MIB
        logger.info("image cache (%s): %s images need %s MiB; %s", self.kind, len(self.index), f"{size:,.1f}", free)

    def _fill(self) -> None:
        """Decode everything with threads (the decoders release the interpreter lock)."""
        with ThreadPoolExecutor(usable_cpus()) as pool:
            blocks = range(0, len(self.index), _BLOCK)
            failed = sum(pool.map(lambda start: sum(map(self._store, range(start, self._end(start)))), blocks))
        if failed:
            logger.warning("image cache: %d images could not be read and are left out", failed)

    def _end(self, start: int) -> int:
        return min(start + _BLOCK, len(self.index))

    def _store(self, i: int) -> bool:
        """Decode one image into its place; True if that failed."""
        try:
            image, _ = read_resized(self.index.image_path(i), self.long_side, area=self.area)
        except ImageError:
            return True  # reported by name when the image is asked for
        height, width = self._shapes[i].tolist()
        if image.shape[:2] != (height, width):
            return True  # the annotations state another size: read it from its file each time
        start = int(self._offsets[i])
        self._bytes[start : start + image.size] = image.reshape(-1)
        self._filled[i] = 1
        return False

    def __getstate__(self) -> dict[str, Any]:
        if self.kind == "ram":
            raise ConfigError(
                'data.cache="ram" cannot be shared with worker processes here', "they are not forked on this system",
                'use data.cache="disk" or data.workers=0',
            )  # fmt: skip
        return {"index": self.index, "long_side": self.long_side, "kind": self.kind, "area": self.area}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _available_memory() -> int:
    """Bytes that can be had without swapping, 0 if unknown; the limit of the control group counts as well."""
    available = 0
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        available = min(available or int(text), max(0, int(text) - int(used.read_text())))
    return available


def open_cache(
    index: DetectionIndex, long_side: int, kind: Literal["none", "ram", "disk"], *, area: bool
) -> ImageCache | None:
    """The cache that a `DataConfig` asks for."""
    return None if kind == "none" else ImageCache(index, long_side, kind, area=area)
