"""Where the tensors of RevCol stand among its published names, in the published order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cloverleaf.backbones.revcol.backbone import RevColSpec

Decoder = Literal["full", "simple", "none"]
Pair = tuple[str | None, str]  # our name, or None where we have no such tensor, and the published one

LEVELS = 4
_PAIRED = ("weight", "bias")
# Parts of a block, in the published order.
_BLOCK = (("depthwise", "dwconv"), ("norm", "norm"), ("expand", "pwconv1"), ("project", "pwconv2"))
_MATRICES = ("pwconv1.weight", "pwconv2.weight", "channel_reschedule.0.weight")
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
        for k in range(LEVELS):  # the first column has published scales, which nothing is multiplied with
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


def heads(supervised: int, decoder: Decoder) -> Iterator[Pair]:
    """One classifier, or one for each supervised column, then that of the last one, and the decoders of the former.

    Args:
        supervised: number of supervised columns.
        decoder: their kind.
    """
    for j in range(supervised):
        yield from _classifier(f"supervision.heads.{j}", f"cls_blocks.{j}")
    yield from _classifier("head", f"cls_blocks.{supervised}" if supervised else "cls")
    for j in range(supervised if decoder != "none" else 0):
        yield from _decoder(f"supervision.decoders.{j}", f"decoder_blocks.{j}", decoder)


def is_matrix(published: str) -> bool:
    """Whether a weight is a matrix where ours is a 1x1 convolution."""
    return published.endswith(_MATRICES)


def _classifier(ours: str, theirs: str) -> Iterator[Pair]:
    for i, part in enumerate(("norm", "linear")):
        yield from _both(f"{ours}.{part}", f"{theirs}.classifier.{i}")


def _decoder(ours: str, theirs: str, kind: Decoder) -> Iterator[Pair]:
    if kind == "simple":
        yield from _both(f"{ours}.norm", f"{theirs}.projback.0")
        yield from _both(f"{ours}.to_pixels", f"{theirs}.projback.1")
        return
    stages = range(LEVELS - 1)
    for t in stages:
        yield from block(f"{ours}.stages.{t}.block", f"{theirs}.normal_layers.{t}.0")
    for t in stages:
        for i, part in enumerate(("project", "norm")):
            yield from _both(f"{ours}.stages.{t}.{part}", f"{theirs}.proj_layers.{t}.{i}")
    yield from _both(f"{ours}.to_pixels", f"{theirs}.projback.0")


def _sources(spec: RevColSpec, column: int, level: int) -> tuple[str, ...]:
    """Published names of the modules that bring coarser maps of the left column to a level."""
    if column == 0 or level == LEVELS - 1:
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
