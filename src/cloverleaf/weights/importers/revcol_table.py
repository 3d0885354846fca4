"""Where the tensors of RevCol stand among its published names, in the published order."""

from __future__ import annotations

from collections.abc import Iterator

from cloverleaf.backbones.revcol.backbone import RevColSpec

Pair = tuple[str | None, str]  # our name, or None where we have no such tensor, and the published one

_LEVELS = 4
_PAIRED = ("weight", "bias")
# Parts of a block, in the published order.
_BLOCK = (("depthwise", "dwconv"), ("norm", "norm"), ("expand", "pwconv1"), ("project", "pwconv2"))
_UP = (("project", "channel_reschedule.0"), ("norm", "channel_reschedule.1"))


def backbone(spec: RevColSpec, prefix: str = "backbone.") -> Iterator[Pair]:
    """Stem and columns.

    Args:
        spec: their options.
        prefix: of our names.
    """
    for i in range(2):
        yield from _both(f"{prefix}stem.{i}", f"stem.{i}")
    for n in range(spec.columns):
        ours, theirs = f"{prefix}columns.{n}", f"subnet{n}"
        for k in range(_LEVELS):  # the first column has published scales, which nothing is multiplied with
            yield f"{ours}.scales.{k}" if n else None, f"{theirs}.alpha{k}"
        for k, blocks in enumerate(spec.layers):
            yield from _fusion(f"{ours}.levels.{k}.fusion", f"{theirs}.level{k}.fusion", _sources(spec, n, k), k > 0)
            for i in range(blocks):
                yield from block(f"{ours}.levels.{k}.blocks.{i}", f"{theirs}.level{k}.blocks.{i}")


def block(ours: str, theirs: str) -> Iterator[Pair]:
    """A ConvNeXt block."""
    yield f"{ours}.layer_scale", f"{theirs}.gamma"
    for mine, published in _BLOCK:
        yield from _both(f"{ours}.{mine}", f"{theirs}.{published}")


def _sources(spec: RevColSpec, column: int, level: int) -> tuple[str, ...]:
    """Published names of the modules that bring coarser maps of the left column to a level."""
    if column == 0 or level == _LEVELS - 1:
        return ()
    return ("up", "up2") if level == 0 and spec.far_fusion else ("up",)


def _fusion(ours: str, theirs: str, sources: tuple[str, ...], halves: bool) -> Iterator[Pair]:
    if halves:
        for i in range(2):
            yield from _both(f"{ours}.down.{i}", f"{theirs}.down.{i}")
    for i, source in enumerate(sources):
        for mine, published in _UP:
            yield from _both(f"{ours}.ups.{i}.{mine}", f"{theirs}.{source}.{published}")


def _both(ours: str, theirs: str) -> Iterator[Pair]:
    return ((f"{ours}.{leaf}", f"{theirs}.{leaf}") for leaf in _PAIRED)
