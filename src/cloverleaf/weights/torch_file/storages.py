"""From windows on storages to tensors: sizes are checked against the bytes that are really there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from cloverleaf.weights.torch_file.values import DAMAGED, HOSTILE, StorageRef, TensorRef, Unreadable, shown

_MAX_DIMENSIONS = 8

# Fills a writable buffer with the bytes of the storage of that name.
Fill = Callable[[str, memoryview], None]


class Storages:
    """The storages of one file; each is read once, so tensors that share memory in the file share it here."""

    def __init__(self, nbytes: Mapping[str, int], fill: Fill) -> None:
        """
        Args:
            nbytes: length of every storage in bytes, as the container has it.
            fill: reads one.
        """
        self._nbytes = nbytes
        self._fill = fill
        self._read: dict[str, tuple[StorageRef, Tensor]] = {}

    def tensor(self, name: str, ref: TensorRef) -> Tensor:
        """The tensor of ``ref``, a view of its storage; ``name`` is for messages.

        Raises:
            Unreadable: the storage is absent or shorter than it claims, or the window leaves it.
        """
        _check_window(name, ref)
        return self._storage(name, ref.storage).as_strided(ref.size, ref.stride, ref.offset)

    def _storage(self, name: str, ref: StorageRef) -> Tensor:
        known = self._read.get(ref.key)
        if known is not None:
            if (known[0].dtype, known[0].numel) != (ref.dtype, ref.numel):
                raise Unreadable(
                    f"two tensors describe storage {shown(ref.key)} differently (at {shown(name)})", HOSTILE
                )
            return known[1]
        if ref.key not in self._nbytes:
            raise Unreadable(f"storage {shown(ref.key)} of {shown(name)} is not in it", DAMAGED)
        dtype = getattr(torch, ref.dtype)
        found, claimed = self._nbytes[ref.key], ref.numel * dtype.itemsize
        if found != claimed:
            raise Unreadable(
                f"storage {shown(ref.key)} of {shown(name)} has {found} bytes, "
                f"but claims {shown(ref.numel)} elements of {ref.dtype}",
                HOSTILE,
            )
        values = torch.empty(found, dtype=torch.uint8)
        if found:
            self._fill(ref.key, values.numpy().data)
        tensor = values.ne(0) if dtype is torch.bool else values.view(dtype)  # a bool is 0 or 1, whatever the file says
        self._read[ref.key] = (ref, tensor)
        return tensor


def _check_window(name: str, ref: TensorRef) -> None:
    """In Python's integers, which do not overflow."""
    if len(ref.size) != len(ref.stride) or len(ref.size) > _MAX_DIMENSIONS:
        raise Unreadable(f"{shown(name)} has {len(ref.size)} sides and {len(ref.stride)} strides", HOSTILE)
    if min((ref.offset, *ref.size, *ref.stride)) < 0:
        raise Unreadable(f"{shown(name)} has a negative size, stride or offset", HOSTILE)
    numel, available = prod(ref.size), ref.storage.numel
    last = ref.offset + sum((side - 1) * step for side, step in zip(ref.size, ref.stride, strict=True))
    if numel > available or (numel and last >= available) or ref.offset > available:
        raise Unreadable(
            f"{shown(name)} has size {shown(ref.size)} and reaches element {shown(last)} of a storage of "
            f"{shown(available)}",
            HOSTILE,
        )
    if max((0, *ref.size, *ref.stride)) >= 2**31:
        raise Unreadable(f"{shown(name)} has a side or stride beyond 31 bits", HOSTILE)
