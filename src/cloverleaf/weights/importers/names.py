"""Renaming between our state dicts and those of the published YOLO implementations, both ways from one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.weights.importers.family import check_num_classes

_CONV = (("norm.", "bn."), ("", ""))
_REP_CONV = (
    ("identity_norm.", "rbr_identity."), ("dense_norm.", "rbr_dense.1."), ("dense.", "rbr_dense.0."),
    ("point_norm.", "rbr_1x1.1."), ("point.", "rbr_1x1.0."), ("conv.", "rbr_reparam."),
)  # fmt: skip
_LEVEL = re.compile(r"head\.(levels|auxiliary)\.(\d+)\.")
_HEAD = {
    "levels": (("project.", "m.{i}."), ("add.value", "ia.{i}.implicit"), ("multiply.value", "im.{i}.implicit")),
    "auxiliary": (("project.", "m2.{i}."),),
}
_HEAD_ORDER = ("anchors", "anchor_grid", "m", "m2", "ia", "im")


@dataclass(frozen=True, slots=True)
class NameTable:
    """Where each of our modules sits in the published layer table.

    Attributes:
        rows: our path of each convolution block -> its place: a row such as `12`, or a part of one such as `51.cv1`.
        head_row: row of the detection head.
        rep_convs: those of the paths that are re-parameterisable convolutions.
    """

    rows: Mapping[str, str]
    head_row: int
    rep_convs: frozenset[str] = frozenset()

    @property
    def head(self) -> str:
        """Published prefix of the head."""
        return f"model.{self.head_row}."

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Published prefixes of everything that belongs to the auxiliary head."""
        rows = [row for path, row in self.rows.items() if path.startswith("head.auxiliary.")]
        return (*(f"model.{row}." for row in rows), f"{self.head}m2.")

    def published(self, keys: Iterable[str]) -> dict[str, str]:
        """Our state-dict keys, without the anchors -> published keys.

        Raises:
            CheckpointError: one of them stands for what the published network does not have.
        """
        return {key: self._published(key) for key in keys if key != "head.anchors_px"}

    def _published(self, key: str) -> str:
        level = _LEVEL.match(key)
        if level:
            for ours, theirs in _HEAD[level[1]]:
                if key.startswith(ours, level.end()):
                    return self.head + theirs.format(i=level[2]) + key[level.end() + len(ours) :]
        prefix = key
        while prefix not in self.rows:
            prefix = prefix.rpartition(".")[0]
            if not prefix:
                raise CheckpointError(
                    f"{key} has no published name", "the published network has nothing in its place",
                    "export a model with the options of its published variant",
                )  # fmt: skip
        rest = key[len(prefix) + 1 :]
        names = _REP_CONV if prefix in self.rep_convs else _CONV
        ours, theirs = next(pair for pair in names if rest.startswith(pair[0]))
        return f"model.{self.rows[prefix]}.{theirs}{rest[len(ours) :]}"

    def anchors_to_published(self, anchors_px: Tensor, strides: Iterable[int]) -> dict[str, Tensor]:
        """``(L, A, 2)`` pixels -> the two published buffers: grid units and pixels."""
        stride = torch.tensor(list(strides), dtype=anchors_px.dtype, device=anchors_px.device)
        return {
            f"{self.head}anchors": anchors_px / stride[:, None, None],
            f"{self.head}anchor_grid": anchors_px[:, None, :, None, None, :].clone(),
        }

    def in_order(self, published: Iterable[str]) -> list[str]:
        """Published keys in the order of the published state dict (stable inside a block)."""
        order = {place: number for number, place in enumerate(self.rows.values())}

        def position(key: str) -> tuple[int, int]:
            if key.startswith(self.head):
                return len(order), _HEAD_ORDER.index(key.removeprefix(self.head).partition(".")[0])
            place = key.removeprefix("model.")
            while place not in order:
                place = place.rpartition(".")[0]
            return order[place], 0

        return sorted(published, key=position)

    def num_classes(self, what: str, state: Mapping[str, Tensor], wanted: int | None) -> int | None:
        """Of the head in a published ``state``; ``wanted`` where that has no head.

        Raises:
            CheckpointError: its size is of no number of classes, or of another than ``wanted``; begins with ``what``.
        """
        bias = state.get(f"{self.head}m.0.bias")
        if bias is None:
            return wanted
        anchors = state.get(f"{self.head}anchors")
        per_cell = anchors.shape[1] if anchors is not None and anchors.ndim == 3 else 3
        found, rest = divmod(bias.numel(), per_cell)
        if rest or found < 6:
            raise CheckpointError(what, f"{self.head}m.0.bias has {bias.numel()} values", "check the variant")
        return check_num_classes(what, found - 5, wanted)

    def anchors_to_ours(self, what: str, state: Mapping[str, Tensor], strides: tuple[int, ...]) -> Tensor:
        """Pixels from `anchor_grid`; `anchors` (grid units, perhaps rounded to fp16) must agree within 1 %.

        Raises:
            CheckpointError: they do not; it begins with ``what``.
        """
        pixels = state[f"{self.head}anchor_grid"].float()[:, 0, :, 0, 0, :]
        units = state[f"{self.head}anchors"].float()
        if not torch.allclose(units * torch.tensor(strides)[:, None, None], pixels, rtol=0.01, atol=0.01):
            raise CheckpointError(
                what, f"{self.head}anchors and {self.head}anchor_grid disagree", "the checkpoint is inconsistent"
            )
        return pixels


def head_prefix(keys: Iterable[str]) -> str:
    """Published prefix of the detection head; empty where there is none."""
    return next((key.removesuffix("m.0.bias") for key in keys if re.fullmatch(r"model\.\d+\.m\.0\.bias", key)), "")


def has_bottlenecks(keys: Iterable[str]) -> bool:
    """Whether published names are of a layer table with chains of bottlenecks."""
    return any(re.match(r"model\.\d+\.m\.\d+\.cv1\.", key) for key in keys)


class Rows:
    """A walk through a published layer table, row by row, that notes where our modules stand."""

    def __init__(self) -> None:
        self.at = 0
        self.rows: dict[str, str] = {}

    def skip(self, count: int = 1) -> None:
        """Rows without parameters: pools, concatenations, enlargements, sums."""
        self.at += count

    def conv(self, path: str) -> None:
        """One convolution block."""
        self.rows[path] = str(self.at)
        self.at += 1

    def block(self, parts: Mapping[str, str]) -> None:
        """One row with several convolution blocks: our path -> their name inside the row."""
        self.rows |= {path: f"{self.at}.{name}" for path, name in parts.items()}
        self.at += 1
