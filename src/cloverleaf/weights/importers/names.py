"""Renaming between our state dicts and those of the published YOLO implementations, both ways from one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_SUFFIXES = (("norm.", "bn."), ("", ""))
_HEAD = (("project.", "m.{i}."), ("add.value", "ia.{i}.implicit"), ("multiply.value", "im.{i}.implicit"))
_HEAD_ORDER = ("anchors", "anchor_grid", "m", "m2", "ia", "im")


@dataclass(frozen=True, slots=True)
class NameTable:
    """Where each of our modules sits in the published layer table.

    Attributes:
        rows: our path of each convolution block -> its row.
        head_row: row of the detection head.
    """

    rows: Mapping[str, int]
    head_row: int

    @property
    def head(self) -> str:
        """Published prefix of the head."""
        return f"model.{self.head_row}."

    def published(self, keys: Iterable[str]) -> dict[str, str]:
        """Our state-dict keys, without the anchors -> published keys."""
        return {key: self._published(key) for key in keys if key != "head.anchors_px"}

    def _published(self, key: str) -> str:
        level = re.match(r"head\.levels\.(\d+)\.", key)
        if level:
            for ours, theirs in _HEAD:
                if key.startswith(ours, level.end()):
                    return self.head + theirs.format(i=level[1]) + key[level.end() + len(ours) :]
        prefix = key
        while prefix not in self.rows:
            prefix = prefix.rpartition(".")[0]
            if not prefix:
                raise KeyError(f"no row for {key!r}")
        rest = key[len(prefix) + 1 :]
        ours, theirs = next(pair for pair in _SUFFIXES if rest.startswith(pair[0]))
        return f"model.{self.rows[prefix]}.{theirs}{rest[len(ours) :]}"

    def anchors_to_published(self, anchors_px: Tensor, strides: Iterable[int]) -> dict[str, Tensor]:
        """``(L, A, 2)`` pixels -> the two published buffers: grid units and pixels."""
        stride = torch.tensor(list(strides), dtype=anchors_px.dtype, device=anchors_px.device)
        return {
            f"{self.head}anchors": anchors_px / stride[:, None, None],
            f"{self.head}anchor_grid": anchors_px[:, None, :, None, None, :].clone(),
        }

    def sort_key(self, published: str) -> tuple[int, int]:
        """Orders published keys as the published state dict does (stable inside a block)."""
        row, _, rest = published.removeprefix("model.").partition(".")
        part = rest.partition(".")[0]
        return int(row), _HEAD_ORDER.index(part) if int(row) == self.head_row else 0


def elan_rows(first: int, path: str, depth: int) -> dict[str, int]:
    """Rows of an ELAN at ``path`` that starts at row ``first``: two 1x1, the chain, (the concat,) the transition."""
    chain = {f"{path}.chain.{i}": first + 2 + i for i in range(depth)}
    return {f"{path}.shortcut": first, f"{path}.base": first + 1, **chain, f"{path}.transition": first + depth + 3}
