"""What the channels are that a head's last convolutions give, where implicit knowledge refines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloverleaf.heads.anchor_based import AnchorHead
from cloverleaf.heads.dense import DenseHead
from cloverleaf.heads.multi import MultiHead
from cloverleaf.inspection.knowledge import Array, Knowledge
from cloverleaf.models.detector import Detector


@dataclass(frozen=True, slots=True)
class OutputNames:
    """Names of the outputs, which are ``rows`` x ``columns``.

    Attributes:
        rows: anchors as ``10 x 13 px``, sides of boxes, or one without a name.
        columns: x, y, w, h, obj and classes of an anchor head; classes; bins of a distribution.
        kinds: of outputs, by name the indices of their columns.
        edges: columns before which another group begins.
        row_kind: what rows are.
        column_kind: what columns are.
        anchors_px: (A, 2) where rows are anchors, else None.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: dict[str, tuple[int, ...]]
    edges: tuple[int, ...]
    row_kind: str
    column_kind: str
    anchors_px: Array | None = None


def box_head(model: Detector) -> Any:
    """The head that predicts boxes, where there are several."""
    return model.head.boxes if isinstance(model.head, MultiHead) else model.head


def of_boxes(model: Detector, knowledge: Knowledge) -> bool:
    """Whether it is in a level of the head that predicts boxes."""
    return knowledge.path.startswith(_levels(model))


def _levels(model: Detector) -> str:
    return "head.boxes.levels." if isinstance(model.head, MultiHead) else "head.levels."


def output_names(model: Detector, knowledge: Knowledge) -> OutputNames | None:
    """Of the outputs that ``knowledge`` refines; None where it refines none, or mixes them."""
    head = box_head(model)
    if not of_boxes(model, knowledge) or knowledge.operator == "inner":
        return None
    level, module = knowledge.path.removeprefix(_levels(model)).split(".")
    names: OutputNames | None = None
    if isinstance(head, AnchorHead) and module in ("multiply", "anchor", "offset"):
        names = _of_anchors(head, int(level), _classes(model))
    elif isinstance(head, DenseHead) and module == "refine_classes":
        names = _of_classes(_classes(model))
    elif isinstance(head, DenseHead) and module in ("refine_distances", "refine_direct"):
        names = _of_sides(knowledge.values.size // 4)
    assert names is None or knowledge.values.size == len(names.rows) * len(names.columns)
    return names


def _classes(model: Detector) -> tuple[str, ...]:
    names = model.metadata.class_names if model.metadata else ()
    return names if len(names) == model.num_classes else tuple(f"class {k}" for k in range(model.num_classes))


def _of_anchors(head: AnchorHead, level: int, classes: tuple[str, ...]) -> OutputNames:
    anchors = head.anchors_px[level].double().cpu().numpy()
    bins = range(1, head.bins + 1)
    sides = {side: (side, *(f"{side} bin {k}" for k in bins)) for side in ("w", "h")}
    groups = {"x": ("x",), "y": ("y",), **sides, "obj": ("obj",), "classes": classes}
    starts = np.cumsum([0, *map(len, groups.values())]).tolist()
    return OutputNames(
        rows=tuple(f"{w:g} x {h:g} px" for w, h in anchors),
        columns=tuple(name for names in groups.values() for name in names),
        kinds={kind: tuple(range(a, b)) for kind, a, b in zip(groups, starts, starts[1:], strict=False)},
        edges=(2, starts[4], starts[5]),
        row_kind="anchor",
        column_kind="output",
        anchors_px=anchors,
    )


def _of_classes(classes: tuple[str, ...]) -> OutputNames:
    return OutputNames(("",), classes, {"classes": tuple(range(len(classes)))}, (), "", "class")


def _of_sides(bins: int) -> OutputNames:
    columns = tuple(map(str, range(bins))) if bins > 1 else ("distance",)
    kind = "bin of the distance in cells" if bins > 1 else ""
    return OutputNames(("left", "top", "right", "bottom"), columns, {"distance": tuple(range(bins))}, (), "side", kind)
