"""The two containers of `torch.save`: a zip archive (torch 1.6 and newer) and a row of pickles (older)."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloverleaf.weights.torch_file import machine, names
from cloverleaf.weights.torch_file.storages import Storages
from cloverleaf.weights.torch_file.values import DAMAGED, HOSTILE, UNUSUAL, Global, StorageRef, Unreadable, shown

MAX_PICKLE = 32 * 2**20  # bytes; the structure of the largest published models needs one million
_MAX_READ = 16 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: the value of its pickle, and its storages, readable while the file is open."""

    value: object
    storages: Storages


class _BoundedFile(io.FileIO):
    """Keeps `zipfile` from reading a table of contents as large as the file claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = _MAX_READ
        if size > _MAX_READ:
            raise Unreadable(f"its table of contents claims {size} bytes", HOSTILE)
        return super().read(size) or b""


@contextmanager
def open_zip(path: Path) -> Iterator[Content]:
    """The content of a zip archive; raises `Unreadable`."""
    with _BoundedFile(path) as file, ExitStack() as stack:
        with _zip_errors():
            archive = stack.enter_context(zipfile.ZipFile(file))
        yield _zip_content(archive, path.stat().st_size)


_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


@contextmanager
def _zip_errors() -> Iterator[None]:
    """Around everything that `zipfile` does, which has no one kind of error for damaged archives."""
    try:
        yield
    except _ZIP_ERRORS as error:
        raise Unreadable(f"its zip archive is truncated or damaged ({shown(str(error))})") from error


def _zip_content(archive: zipfile.ZipFile, file_size: int) -> Content:
    entries = _checked_entries(archive, file_size)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Unreadable("it is a zip archive without the data.pkl of torch.save", UNUSUAL)
    root = roots[0]
    if f"{root}/constants.pkl" in entries:
        raise Unreadable("it is a TorchScript program, which is code", UNUSUAL)
    order = _whole_entry(archive, entries.get(f"{root}/byteorder"), 16)
    if order not in (b"", b"little"):
        raise Unreadable(f"its numbers are {shown(order.decode('latin-1'))}-endian", UNUSUAL)
    prefix = f"{root}/data/"
    stored = {name.removeprefix(prefix): info for name, info in entries.items() if name.startswith(prefix)}

    def fill(key: str, buffer: memoryview) -> None:
        with _zip_errors(), archive.open(stored[key]) as entry:
            _fill(entry, buffer, f"storage {key}")

    pickled = io.BytesIO(_whole_entry(archive, entries[f"{root}/data.pkl"], MAX_PICKLE))
    value = machine.run(pickled, lambda claim: _storage(claim, length=5))
    return Content(value, Storages({key: info.file_size for key, info in stored.items()}, fill))


def _checked_entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """By name. torch stores entries as they are, once each; anything else was made by someone else."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name, raw = info.filename, info.orig_filename
        if raw.startswith("/") or "\\" in raw or "\0" in raw or ":" in raw or ".." in raw.split("/"):
            raise Unreadable(f"an entry of its archive has the path {shown(raw)}", HOSTILE)
        if name in entries:
            raise Unreadable(f"its archive has two entries {shown(name)}", HOSTILE)
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise Unreadable(
                f"entry {shown(name)} of its archive is compressed ({info.compress_size} bytes for {info.file_size}), "
                "which torch never does",
                HOSTILE,
            )
        if info.flag_bits & 1:
            raise Unreadable(f"entry {shown(name)} of its archive is encrypted", UNUSUAL)
        entries[name] = info
    claimed = sum(info.file_size for info in entries.values())
    if claimed > file_size:
        raise Unreadable(f"the entries of its archive claim {claimed} bytes, but the file has {file_size}", HOSTILE)
    return entries


def _whole_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, limit: int) -> bytes:
    if info is None:
        return b""
    if info.file_size > limit:
        raise Unreadable(f"entry {shown(info.filename)} of its archive has {info.file_size} bytes", HOSTILE)
    content = bytearray(info.file_size)
    with _zip_errors(), archive.open(info) as entry:
        _fill(entry, memoryview(content), info.filename)
    return bytes(content)


@contextmanager
def open_legacy(path: Path) -> Iterator[Content]:
    """The content of a row of pickles: magic, protocol, machine, value, names of storages; then the storages."""
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MAX_PICKLE))
        if machine.run(head, _no_storage) != _LEGACY_MAGIC:
            raise Unreadable("it is a pickle, but not one of torch.save", UNUSUAL)
        if machine.run(head, _no_storage) != _LEGACY_PROTOCOL:
            raise Unreadable("it has another version of torch's old format", UNUSUAL)
        made_on = machine.run(head, _no_storage)
        if not isinstance(made_on, dict) or made_on.get("little_endian") is not True:
            raise Unreadable("its numbers are big-endian", UNUSUAL)
        claims: dict[str, StorageRef] = {}

        def persistent(claim: object) -> object:
            if isinstance(claim, tuple) and len(claim) == 4 and claim[0] == "module" and isinstance(claim[1], Global):
                return claim[1]  # a class with its source text, which is of no interest
            ref = _storage(claim, length=6)
            return claims.setdefault(ref.key, ref)

        value = machine.run(head, persistent)
        keys = machine.run(head, _no_storage)
        yield Content(value, _legacy_storages(file, head.tell(), path.stat().st_size, keys, claims))


def _legacy_storages(
    file: BinaryIO, position: int, file_size: int, keys: object, claims: dict[str, StorageRef]
) -> Storages:
    """Each storage is its number of elements (int64) and its bytes, in the order of ``keys``."""
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else [None]:
        if not isinstance(key, str) or key in places or key not in claims:
            raise Unreadable(f"its list of storages has {shown(key)}, which is unknown or there twice", HOSTILE)
        file.seek(position)
        header = file.read(8)
        claim = claims[key]
        if len(header) < 8 or struct.unpack("<q", header)[0] != claim.numel:
            raise Unreadable(
                f"storage {shown(key)} is truncated or has not the {shown(claim.numel)} elements it claims"
            )
        places[key] = position + 8, claim.numel * _ITEM_SIZES[claim.dtype]
        position += 8 + places[key][1]
        if position > file_size:
            raise Unreadable(f"it ends within storage {shown(key)}", DAMAGED)
    if position != file_size:
        raise Unreadable(f"{file_size - position} bytes follow its last storage", DAMAGED)

    def fill(key: str, buffer: memoryview) -> None:
        file.seek(places[key][0])
        _fill(file, buffer, f"storage {key}")

    return Storages({key: nbytes for key, (_, nbytes) in places.items()}, fill)


_ITEM_SIZES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1,
               "uint8": 1, "bool": 1}  # fmt: skip


def _storage(claim: object, *, length: int) -> StorageRef:
    """``('storage', class, key, device, elements[, view])``, a persistent id of torch."""
    if not isinstance(claim, tuple) or len(claim) != length or claim[0] != "storage":
        raise Unreadable("it refers to something outside that is no storage", HOSTILE)
    cls, key, numel = claim[1], claim[2], claim[4]
    dtype = names.STORAGES.get(cls.name) if isinstance(cls, Global) and cls.module in ("torch", "torch.cuda") else None
    if dtype is None:
        raise Unreadable(f"it has a storage of kind {shown(cls.path if isinstance(cls, Global) else cls)}", UNUSUAL)
    if not isinstance(key, str) or not re.fullmatch(r"[0-9]{1,20}", key) or type(numel) is not int or numel < 0:
        raise Unreadable(f"it has a storage of name {shown(key)} and {shown(numel)} elements", HOSTILE)
    if length == 6 and claim[5] is not None:
        raise Unreadable("it has a view of a storage, as torch before 0.4 wrote", UNUSUAL)
    return StorageRef(key, dtype, numel)


def _no_storage(_: object) -> object:
    raise Unreadable("it refers to a storage where none can be", HOSTILE)


def _fill(file: object, buffer: memoryview, what: str) -> None:
    """Read exactly as much as ``buffer`` holds."""
    position = 0
    while position < len(buffer):
        count = file.readinto(buffer[position : position + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise Unreadable(f"it ends within {shown(what)}", DAMAGED)
        position += count
