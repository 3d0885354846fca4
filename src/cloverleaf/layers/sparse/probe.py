"""Watches a sparse backbone run once, to find what would let it see more than it may."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cloverleaf.errors import ConfigError
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.layers import MaskedOutput, OverVisible, SparseLayer

_BATCH, _CELLS = 2, (3, 5)  # a grid that no other axis is likely to look like


def probe(backbone: nn.Module, cells: VisibleCells, patch_size: int) -> list[str]:
    """Run ``backbone``, made by `sparsify`, on noise with random weights, and check every step.

    Args:
        backbone: left as it is; a copy runs.
        cells: the context of its layers.
        patch_size: side of a cell in pixels.

    Returns:
        Paths of the masked layers whose output only `OverVisible` layers read: they need no mask.

    Raises:
        ConfigError: some layer mixes all positions, or gives non-zero values at masked ones, or has positions that do
            not line up with the cells. The message names it.
    """
    tried, seen = copy.deepcopy((backbone, cells))
    generator = torch.Generator().manual_seed(0)
    _stir(tried, generator)
    for module in tried.float().eval().modules():
        module.training = isinstance(module, OverVisible)  # keeps activations in bounds, however deep
    visible = torch.rand(_BATCH, 1, *_CELLS, generator=generator) < 0.5
    visible[:, :, 0, 0], visible[:, :, 0, 1] = True, False
    seen.show(visible)
    height, width = _CELLS[0] * patch_size, _CELLS[1] * patch_size
    images = torch.randn(_BATCH, 3, height, width, generator=generator) * seen.mask(height, width, torch.float32)
    watcher = _Watcher(seen)
    hooks = [hook for name, module in tried.named_modules() for hook in watcher.attach(name, module)]
    try:
        with torch.no_grad(), watcher:
            watcher.follow(images)
            watcher.read_by_others(tried(images))
    except _Fault as fault:
        raise ConfigError(
            f"layer {watcher.where} cannot be made sparse: {fault}",
            "masked pre-training needs a backbone in which every position sees its own surroundings only",
            "choose a backbone of convolutions, poolings and BatchNorm",
        ) from None
    except ConfigError as error:
        raise ConfigError(f"layer {watcher.where}: {error.what}", error.why, error.fix) from None
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in watcher.masked if name not in watcher.needed]


def _stir(module: nn.Module, generator: torch.Generator) -> None:
    """Move scales, offsets and zeros off their initial values, which may hide what a layer does."""
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                value.add_(0.1)
            elif value.is_floating_point() and (value.ndim < 2 or not value.any()):
                value.add_(torch.randn(value.shape, generator=generator).to(value), alpha=0.1)


class _Fault(Exception):
    """What a layer does that it must not."""


class _Watcher(TorchFunctionMode):
    """Follows everything computed from the images."""

    def __init__(self, cells: VisibleCells) -> None:
        super().__init__()
        self.cells = cells
        self.masked: list[str] = []
        self.needed: set[str] = set()
        self._source: dict[int, str | None] = {}  # tensors computed from the images; the masked layer that gave them
        self._kept: list[Any] = []  # so that an id stays its tensor's own
        self._path: list[tuple[str, nn.Module]] = []

    @property
    def where(self) -> str:
        """The innermost layer that is running."""
        name, module = self._path[-1] if self._path else ("", None)
        return f"{name or 'backbone'} ({type(module).__name__.removeprefix('Sparse')})"

    @property
    def _sparse(self) -> SparseLayer | None:
        return next((module for _, module in reversed(self._path) if isinstance(module, SparseLayer)), None)

    def attach(self, name: str, module: nn.Module) -> Iterable[Any]:
        """Hooks that tell which layer is running."""
        yield module.register_forward_pre_hook(lambda _m, _inputs: self._path.append((name, module)))
        yield module.register_forward_hook(self._leaving(name, module))

    def _leaving(self, name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(module, SparseLayer):
                if isinstance(module, MaskedOutput) and name not in self.masked:
                    self.masked.append(name)
                self._check(output)
                self.follow(output, name if isinstance(module, MaskedOutput) else None)
            self._path.pop()

        return hook

    def follow(self, value: Any, source: str | None = None) -> None:
        """Remember that ``value`` comes from the images."""
        self._kept.append(value)
        for tensor in _tensors(value):
            self._source[id(tensor)] = source

    def read_by_others(self, value: Any) -> None:
        """Whatever of ``value`` a masked layer gave must be masked."""
        for tensor in _tensors(value):
            if (name := self._source.get(id(tensor))) is not None:
                self.needed.add(name)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = list(_tensors((args, list((kwargs or {}).values()))))
        inside = self._sparse
        if not isinstance(inside, OverVisible) and isinstance(result, Tensor | tuple | list):
            self.read_by_others(read)
        if inside is None and any(id(tensor) in self._source for tensor in read):
            for tensor in _tensors(result):
                if tensor.is_floating_point():
                    self._check(tensor)
                    self.follow(tensor, self._source.get(id(tensor)))
        return result

    def _check(self, value: Tensor) -> None:
        shape = value.shape
        if value.ndim >= 4 and self._fits(shape[-2], shape[-1]):
            mask = self.cells.mask(shape[-2], shape[-1], torch.float32)
            mask = mask.reshape(_BATCH, *[1] * (value.ndim - 3), *shape[-2:])
        elif value.ndim == 4 and self._fits(shape[1], shape[2]):
            mask = self.cells.mask(shape[1], shape[2], torch.float32).permute(0, 2, 3, 1)
        elif value.ndim == 4 and isinstance(self._sparse, SparseLayer):
            self.cells.cell_size(shape[-2], shape[-1])  # raises, and says what does not line up
        else:
            raise _Fault(f"it mixes the positions of a map, and gives values of shape {tuple(shape)}")
        if shape[0] != _BATCH or bool((value * (1 - mask)).any()):
            raise _Fault("its output at masked positions is not zero")

    def _fits(self, height: int, width: int) -> bool:
        return height % _CELLS[0] == 0 and width % _CELLS[1] == 0 and height * _CELLS[1] == width * _CELLS[0]


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
