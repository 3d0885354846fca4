"""Where the modules of YOLOR stand in the layer tables of its paper's form and of the form published with YOLOv7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloverleaf.backbones.csp_stages import STEMS, CspStagesSpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.necks.csp_pan import CspPanSpec
from cloverleaf.weights.importers.names import NameTable, Rows

# Parts of one row -> their names inside it, in the published order; the bottlenecks of a block follow.
_CSP = {"main": "cv1", "bypass": "cv2", "merge": "cv3"}
_CSP_TRANSITION = {"main": "cv1", "bypass": "cv2", "transition": "cv3", "merge": "cv4"}
_SHARED_CSP = {"main": "cv1", "join.bypass": "cv2", "merge": "cv4", "join.norm": "bn"}
_SHARED_CSP_TRANSITION = {
    "main": "cv1", "join.bypass": "cv2", "join.transition": "cv3", "merge": "cv4", "join.norm": "bn",
}  # fmt: skip
_REVERSED = {"enter": "cv1", "bypass": "cv2", "merge": "cv3"}
_SHARED_REVERSED = {"enter": "cv1", "join.bypass": "cv2", "merge": "cv3", "join.norm": "bn"}
_SPP = {
    "reduce.0": "cv1", "bypass": "cv2", "reduce.1": "cv3", "reduce.2": "cv4", "mix.0": "cv5", "mix.1": "cv6",
    "merge": "cv7",
}  # fmt: skip
_SHARED_SPP = {
    "reduce.0": "cv1", "join.bypass": "cv2", "reduce.1": "cv3", "reduce.2": "cv4", "mix.0": "cv5", "mix.1": "cv6",
    "join.norm": "bn", "merge": "cv7",
}  # fmt: skip
_DOWN = {"reduce": "cv1", "stride": "cv2", "pooled": "cv3"}
_BOTTLENECK = {"reduce": "cv1", "expand": "cv2"}


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells the published variants apart, but for those whose tensors are alike.

    Attributes:
        widths: of the maps that the head reads, finest first.
        bottlenecks: in the blocks of backbone and neck together.
        shared: whether the paths of a block share a normalisation.
    """

    widths: tuple[int, ...]
    bottlenecks: int
    shared: bool


def signature(spec: DetectorSpec) -> Signature:
    """Of a spec with the widths of its neck given."""
    backbone, neck, head = _parts(spec)
    merges = 2 * (len(head.anchors_px) - 1)
    widths = tuple(2 * width for width in neck.channels or ())
    return Signature(widths, sum(backbone.depths) + merges * neck.depth, backbone.norm == "shared")


def joins(spec: DetectorSpec) -> dict[str, float]:
    """Our paths of the blocks' joints that share a normalisation -> its epsilon."""
    backbone, neck, _ = _parts(spec)
    eps = {"backbone": backbone.norm_eps, "neck": neck.norm_eps}
    paths = [path.removesuffix(".norm") for path in name_table(spec).rows if path.endswith(".join.norm")]
    return {path: eps[path.partition(".")[0]] for path in paths}


def name_table(spec: DetectorSpec) -> NameTable:
    """The table of a spec made of `csp-stages`, `csp-pan` and `anchor`."""
    backbone, neck, head = _parts(spec)
    rows = Rows()
    _backbone(rows, backbone)
    _neck(rows, neck, len(head.anchors_px))
    return NameTable(rows.rows, rows.at)


def _parts(spec: DetectorSpec) -> tuple[CspStagesSpec, CspPanSpec, AnchorHeadSpec]:
    backbone, neck, head = spec.backbone, spec.neck, spec.head
    assert isinstance(backbone, CspStagesSpec) and isinstance(neck, CspPanSpec) and isinstance(head, AnchorHeadSpec)
    return backbone, neck, head


def _backbone(rows: Rows, spec: CspStagesSpec) -> None:
    match spec.stem:
        case "conv" | "residual":
            for i in range(len(spec.stem_channels)):
                rows.conv(f"backbone.stem.{i}")
            if spec.stem == "residual":
                rows.block(_in("backbone.stem.2", _BOTTLENECK))
        case "space-to-depth":
            rows.skip()
            rows.conv("backbone.stem.1")
        case "space-to-depth-8" | "wavelet-8":
            rows.skip(3)
    form = STEMS[spec.stem]
    names = {
        ("separate", False): _CSP, ("separate", True): _CSP_TRANSITION,
        ("shared", False): _SHARED_CSP, ("shared", True): _SHARED_CSP_TRANSITION,
    }[spec.norm, spec.transition]  # fmt: skip
    for i, depth in enumerate(spec.depths):
        halved = i > 0 or form.halved
        path = f"backbone.stage{form.stride << (i + form.halved)}"
        if halved:
            _down(rows, f"{path}.0", spec.downsample)
        _csp(rows, f"{path}.1" if halved else path, names, depth)


def _neck(rows: Rows, spec: CspPanSpec, levels: int) -> None:
    """The head's stems stand between its merges."""
    merge = _REVERSED if spec.norm == "separate" else _SHARED_REVERSED
    rows.block(_in("neck.spp", _SPP if spec.norm == "separate" else _SHARED_SPP))
    for i in reversed(range(levels - 1)):
        rows.conv(f"neck.narrow.{i}")
        rows.skip()
        rows.conv(f"neck.lateral.{i}")
        rows.skip()
        _csp(rows, f"neck.down_merge.{i}", merge, spec.depth)
    rows.conv("head.levels.0.stem")
    for i in range(levels - 1):
        _down(rows, f"neck.reduce.{i}", spec.downsample)
        rows.skip()
        _csp(rows, f"neck.up_merge.{i}", merge, spec.depth)
        rows.conv(f"head.levels.{i + 1}.stem")


def _down(rows: Rows, path: str, kind: str) -> None:
    if kind == "pooled-csp":
        rows.block(_in(path, _DOWN))
    else:
        rows.conv(path)


def _csp(rows: Rows, path: str, names: Mapping[str, str], depth: int) -> None:
    bottlenecks = {
        f"blocks.{i}.{part}": f"m.{i}.{name}" for i in range(depth) for part, name in _BOTTLENECK.items()
    }  # fmt: skip
    rows.block(_in(path, {**names, **bottlenecks}))


def _in(path: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{path}.{part}": name for part, name in parts.items()}
