"""Published names of the YOLOv7 family: the layer tables of the published implementation, derived from a spec."""

from __future__ import annotations

from cloverleaf.backbones.elan import ElanSpec, ElanTinySpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.models.yolov7 import VARIANTS
from cloverleaf.necks.elan_pan import ElanPanSpec
from cloverleaf.weights.importers.names import NameTable, Rows

NAMES = tuple(VARIANTS)


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
