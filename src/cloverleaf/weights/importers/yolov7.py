"""Published names of the YOLOv7 family: the layer tables of the published implementation, derived from a spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor

from cloverleaf.backbones.elan import ElanSpec, ElanTinySpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.models.yolov7 import VARIANTS
from cloverleaf.necks.elan_pan import ElanPanSpec
from cloverleaf.weights.importers.family import Reading, same_kinds
from cloverleaf.weights.importers.names import NameTable, Rows, has_bottlenecks, head_prefix
from cloverleaf.weights.strict import Shape

NAMES = tuple(VARIANTS)
ORIGIN = "these weights come from a project under the GPL-3.0 licence or were made with its code"
_NOT_COMPARED = re.compile(r"num_batches_tracked$|\.(ia|im|m2)\.\d+\.|^head\.m\.\d+\.")  # optional, or of the classes


def is_like(keys: Iterable[str]) -> bool:
    """Rows of a layer table without chains of bottlenecks, which YOLOR's have."""
    keys = tuple(keys)
    return any(re.match(r"model\.\d+\.", key) for key in keys) and not has_bottlenecks(keys)


def covers(spec: DetectorSpec) -> bool:
    """The named variants, whatever their options."""
    return spec.name in NAMES and same_kinds(spec, VARIANTS[spec.name].spec)


def describe(what: str, shapes: Mapping[str, Shape]) -> None:
    """Only comparing tells the variants apart."""


def recognise_form(keys: Iterable[str]) -> Form:
    """Which published form the names belong to."""
    keys = tuple(keys)
    if not any(".bn." in key for key in keys):
        return "fused"
    return "training" if any(".ia." in key for key in keys) else "deploy"


def read(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
    """The head row of a fused training form is that of its training form."""
    form = recognise_form(state)
    assert isinstance(spec.head, AnchorHeadSpec)
    whole = replace(spec, head=replace(spec.head, auxiliary=any(".m2." in key for key in state)))
    table = name_table(whole)
    if form == "fused":  # what was left standing when the published code fused a training form
        idle = (f"{table.head}ia.", f"{table.head}im.", *table.auxiliary)
        state = {key: value for key, value in state.items() if not key.startswith(idle)}
    whole = replace(whole, num_classes=table.num_classes(what, state, num_classes) or spec.num_classes)
    forms = {"training": whole, "deploy": whole.as_deployed(), "fused": whole.as_fused()}
    return Reading(forms[form], state, Yolov7Layout(table))


def layout(spec: DetectorSpec) -> Yolov7Layout:
    """Its name table."""
    return Yolov7Layout(name_table(spec))


def likely(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Variants whose head has the same row."""
    row = head_prefix(shapes)
    return tuple(name for name in NAMES if row in _head_rows(name))


def comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The row of the head differs between forms, so it is called ``head``."""
    head = head_prefix(shapes)
    named = {f"head.{key.removeprefix(head)}" if head and key.startswith(head) else key: v for key, v in shapes.items()}
    return {key: shape for key, shape in named.items() if not _NOT_COMPARED.search(key)}


@dataclass(frozen=True, slots=True)
class Yolov7Layout:
    """A `Layout` by rows; anchors are published twice."""

    table: NameTable

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """In the order of the rows."""
        state = model.state_dict()
        theirs = {published: state[key] for key, published in self.table.published(state).items()}
        theirs |= self.table.anchors_to_published(model.anchors_px, model.strides)
        return {key: theirs[key] for key in self.table.in_order(theirs)}

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The two copies of the anchors must agree."""
        tensors = {key: state[theirs] for key, theirs in self.table.published(model.state_dict()).items()}
        return tensors | {"head.anchors_px": self.table.anchors_to_ours(what, state, model.strides)}


def name_table(spec: DetectorSpec) -> NameTable:
    """The table of a spec made of `elan` or `elan-tiny`, `elan-pan` and `anchor`.

    The four auxiliary convolutions of a P6 model stand before the head, whose row depends on them.
    """
    backbone = spec.backbone.resolved() if isinstance(spec.backbone, ElanTinySpec) else spec.backbone
    neck, head = spec.neck, spec.head
    assert isinstance(backbone, ElanSpec) and isinstance(neck, ElanPanSpec) and isinstance(head, AnchorHeadSpec)
    rows = Rows()
    _backbone(rows, backbone)
    _neck(rows, neck, levels := len(head.anchors_px))
    for i in range(levels):
        rows.conv(f"head.levels.{i}.stem")
    for i in range(levels if head.auxiliary else 0):
        rows.conv(f"head.auxiliary.{i}.stem")
    rep = [f"head.levels.{i}.stem" for i in range(levels)] if head.stem == "rep" else []
    return NameTable(rows.rows, rows.at, frozenset(rep))


def _backbone(rows: Rows, spec: ElanSpec) -> None:
    folded = spec.stem == "space-to-depth"
    rows.skip(int(folded))
    for i in range(len(spec.stem_channels)):
        rows.conv(f"backbone.stem.{i + folded}")
    for i in range(len(spec.channels)):
        path = f"backbone.stage{4 << i}"
        if i == 0 and not folded:
            _elan(rows, path, spec.depth, spec.groups)
            continue
        _down(rows, f"{path}.0", spec.downsample)
        rows.skip(int(spec.downsample == "pooled-conv"))  # its concatenation is a row of its own
        _elan(rows, f"{path}.1", spec.depth, spec.groups)


def _neck(rows: Rows, spec: ElanPanSpec, levels: int) -> None:
    if spec.spp == "cspc":
        parts = ("reduce.0", "bypass", "reduce.1", "reduce.2", "mix.0", "mix.1", "merge")
        rows.block({f"neck.spp.{part}": f"cv{i}" for i, part in enumerate(parts, 1)})
    else:
        rows.conv("neck.spp.bypass")
        rows.conv("neck.spp.reduce")
        rows.skip(4)  # three pools and their concatenation
        rows.conv("neck.spp.mix")
        rows.skip()
        rows.conv("neck.spp.merge")
    for i in reversed(range(levels - 1)):
        rows.conv(f"neck.narrow.{i}")
        rows.skip()
        rows.conv(f"neck.lateral.{i}")
        rows.skip()
        _elan(rows, f"neck.down_merge.{i}", spec.depth, spec.groups)
    for i in range(levels - 1):
        _down(rows, f"neck.reduce.{i}", spec.downsample)
        rows.skip()
        _elan(rows, f"neck.up_merge.{i}", spec.depth, spec.groups)


def _down(rows: Rows, path: str, kind: str) -> None:
    match kind:
        case "pool":
            rows.skip()
        case "conv":
            rows.conv(path)
        case "pooled-conv":
            rows.skip()
            for part in ("pooled", "reduce", "stride"):
                rows.conv(f"{path}.{part}")
        case "pooled-csp":
            rows.block({f"{path}.{part}": f"cv{i}" for i, part in enumerate(("reduce", "stride", "pooled"), 1)})


def _elan(rows: Rows, path: str, depth: int, groups: int) -> None:
    """Two 1x1, the chain, the concatenation, the transition; of an E-ELAN each branch, then the sum."""
    for branch in [f"{path}.branches.{group}" for group in range(groups)] if groups > 1 else [path]:
        for part in ("shortcut", "base", *(f"chain.{i}" for i in range(depth))):
            rows.conv(f"{branch}.{part}")
        rows.skip()
        rows.conv(f"{branch}.transition")
    rows.skip(int(groups > 1))


@cache
def _head_rows(name: str) -> tuple[str, str]:
    spec = find_spec(name)
    return name_table(spec).head, name_table(spec.as_deployed()).head
