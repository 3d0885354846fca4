"""Checkpoints of other programs, read without running anything in them (docs/checkpoints.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.weights.torch_file.container import Content, open_legacy, open_zip
from cloverleaf.weights.torch_file.modules import is_module, state_dict_of
from cloverleaf.weights.torch_file.values import UNUSUAL, Record, TensorRef, Unreadable, shown

FileKind = Literal["zip", "legacy", "safetensors"]
_MAX_NAMES = 10_000
_DARKNET = bytes((0, 0, 0, 0, 2, 0, 0, 0))  # version 0.2
_ENTRIES = ("ema", "state_dict_ema", "model", "state_dict")  # averages first


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """What a checkpoint file holds.

    Attributes:
        state: published names and tensors on the CPU, in the order and of the types of the file.
        source: the entry of the file that they came from: ``ema``, ``state_dict_ema``, ``model`` or ``state_dict``;
            empty for the whole file.
        kind: how it was written: by torch as a zip archive or in the older (legacy) way, or as safetensors.
        class_names: one for each class, empty where the file has none.
        num_classes: what the model says of itself, None where it does not.
        epoch: of an interrupted training run; None or -1 for a finished one (it has no optimiser any more), and where
            the file does not tell one from the other.
        strides: of the model's levels in pixels, empty where the file has none.
        modules: class names of the modules in it (``torch.nn.modules.activation.SiLU``), empty for a mere state dict.
    """

    state: Mapping[str, Tensor]
    source: str
    kind: FileKind
    class_names: tuple[str, ...] = ()
    num_classes: int | None = None
    epoch: int | None = None
    strides: tuple[int, ...] = ()
    modules: frozenset[str] = frozenset()


def read_official(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """The published names and tensors of a checkpoint, as `import_state_dict` takes them; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_checkpoint(path: str | os.PathLike[str]) -> PublishedCheckpoint:
    """Read a ``.pt`` or ``.pth`` file of torch, or a safetensors file with published names.

    Nothing in the file is executed and no class of it is needed: pickled objects become inert records, of which modules
    are taken apart into their tensors. Of a dict ``ema`` or ``state_dict_ema`` counts where it is there and not None,
    else ``model``, else ``state_dict``.

    Raises:
        CheckpointError: the file is absent, truncated or no checkpoint, or it holds what no checkpoint needs; then the
            message has the name of the offending global.
    """
    path = Path(path)
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"no checkpoint {path}", why, "check the path")
    try:
        kind = _kind(path)
        if kind == "safetensors":
            return _read_safetensors(path)
        with open_zip(path) if kind == "zip" else open_legacy(path) as content:
            return _chosen(content, kind)
    except Unreadable as error:
        raise CheckpointError(f"{path} is not read", error.why, error.fix) from error


def _kind(path: Path) -> FileKind:
    """By the first bytes; raises `Unreadable` that says what else the file is."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return "legacy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise Unreadable("it is empty")
    if text.startswith(b"<") and b"html" in text:
        raise Unreadable(
            "it is a web page (HTML), not a checkpoint; the server sent a page instead of the file",
            "open the address in a browser and download the file itself",
        )
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise Unreadable("it is a Git LFS pointer, not the file it points to", "run git lfs pull, or download the file")
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        raise Unreadable(
            "it is a tar or gzip archive", "unpack it; if it was written by torch before 0.1.10, save it anew"
        )
    if head.startswith((b"\x89HDF", b"ONNX", b"\x08")):
        raise Unreadable("it is no file of PyTorch (ONNX or HDF5?)", "import the .pt file that it was made from")
    if path.suffix == ".weights" or head.startswith(_DARKNET):
        raise Unreadable(
            "it is a file of darknet, without names, classes and implicit knowledge",
            "import the .pt file of the same model",
        )
    beginning = shown(head[:40].decode("latin-1"))
    raise Unreadable(f"it is no checkpoint of PyTorch; it begins with {beginning!r}")


def _read_safetensors(path: Path) -> PublishedCheckpoint:
    try:
        with safe_open(path, framework="pt") as file:
            if "cloverleaf" in (file.metadata() or {}):
                raise Unreadable(
                    "it is a Cloverleaf weights file already", "use it as it is; there is nothing to import"
                )
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Unreadable(f"it is a truncated or damaged safetensors file ({shown(str(error))})") from error
    if not state:
        raise Unreadable("it holds no tensors", UNUSUAL)
    return PublishedCheckpoint(_without_wrapper(state), "", "safetensors")


def _chosen(content: Content, kind: FileKind) -> PublishedCheckpoint:
    whole = content.value
    source, chosen = "", whole
    if isinstance(whole, dict):
        source, chosen = next(((k, whole[k]) for k in _ENTRIES if whole.get(k) is not None), ("", whole))
    entry = f"entry {source!r} of the file" if source else "the file"
    modules: frozenset[str] = frozenset()
    attributes: Mapping[str, object] = {}
    if isinstance(chosen, Record) and is_module(chosen):
        refs, modules = state_dict_of(chosen)
        attributes = chosen.attributes
    elif isinstance(chosen, dict):
        refs = _plain_state(chosen, entry)
    else:
        raise Unreadable(f"{entry} is neither a module nor a state dict", UNUSUAL)
    if not refs:
        raise Unreadable(f"{entry} holds no tensors", UNUSUAL)
    state = {name: content.storages.tensor(name, ref) for name, ref in refs.items()}
    classes, stride = attributes.get("nc"), attributes.get("stride")
    return PublishedCheckpoint(
        _without_wrapper(state),
        source,
        kind,
        class_names=_class_names(attributes.get("names")),
        num_classes=classes if isinstance(classes, int) and not isinstance(classes, bool) else None,
        epoch=_epoch(whole) if isinstance(whole, dict) else None,
        strides=_strides(content.storages.tensor("stride", stride)) if isinstance(stride, TensorRef) else (),
        modules=modules,
    )


def _epoch(whole: Mapping[object, object]) -> int | None:
    """None also where a finished run has kept the number of its last epoch: it has given its optimiser away.

    RevCol's runs (``max_accuracy``) never do, so that nothing is known of them.
    """
    epoch = whole.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or "max_accuracy" in whole:
        return None
    return None if epoch >= 0 and "optimizer" in whole and whole["optimizer"] is None else epoch


def _plain_state(values: Mapping[object, object], entry: str) -> dict[str, TensorRef]:
    refs = {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, TensorRef)}
    other = next((name for name in values if name not in refs), None)
    if other is not None:
        raise Unreadable(f"{entry} is no state dict: its entry {shown(other)} is no tensor", UNUSUAL)
    return refs


def _without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that `DataParallel` puts before every name."""
    prefix = "module."
    wrapped = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix): value for name, value in state.items()} if wrapped else state


def _class_names(names: object) -> tuple[str, ...]:
    """From a list, or a dict by class number; empty where they are anything else."""
    if isinstance(names, dict):
        names = [names.get(number) for number in range(len(names))]
    if not isinstance(names, list | tuple) or len(names) > _MAX_NAMES:
        return ()
    texts = tuple(shown(name) for name in names if isinstance(name, str))
    return texts if len(texts) == len(names) else ()


def _strides(stride: Tensor) -> tuple[int, ...]:
    fits = stride.ndim == 1 and len(stride) <= 16 and bool(stride.isfinite().all())
    return tuple(int(side) for side in stride.tolist()) if fits else ()
