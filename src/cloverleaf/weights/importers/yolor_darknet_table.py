"""Where the parts of Scaled-YOLOv4 and YOLOR stand in the lists that darknet's configuration files make of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloverleaf.backbones.csp_stages import STEMS, CspStagesSpec
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.necks.csp_pan import CspPanSpec
from cloverleaf.weights.importers.names import Rows

_LEAVES = (
    ("norm.", "BatchNorm2d."), ("conv.", "Conv2d."),
    ("weight", "Conv2d.weight"), ("bias", "Conv2d.bias"), ("value", "implicit"),
)  # fmt: skip
_INDEX = re.compile(r"module_list\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class DarknetTable:
    """Our paths of convolutions, projections and implicit vectors -> their places in the list.

    Attributes:
        rows: path -> index.
        length: elements of the list, those without parameters too.
    """

    rows: Mapping[str, str]
    length: int

    def published(self, key: str) -> str:
        """Our state-dict key -> the published one."""
        prefix = key
        while prefix not in self.rows:
            prefix = prefix.rpartition(".")[0]
            if not prefix:
                raise KeyError(f"no place for {key!r}")
        rest = key[len(prefix) + 1 :]
        ours, theirs = next(pair for pair in _LEAVES if rest.startswith(pair[0]))
        return f"module_list.{self.rows[prefix]}.{theirs}{rest[len(ours) :]}"


def index_of(published: str) -> int:
    """The place that a published key names; -1 where it is no key of such a list."""
    match = _INDEX.match(published)
    return int(match[1]) if match else -1


def darknet_table(spec: DetectorSpec) -> DarknetTable:
    """The table of a spec made of `csp-stages`, `csp-pan` and `anchor`."""
    backbone, neck, head = spec.backbone, spec.neck, spec.head
    assert isinstance(backbone, CspStagesSpec) and isinstance(neck, CspPanSpec) and isinstance(head, AnchorHeadSpec)
    rows, levels = Rows(), len(head.anchors_px)
    _backbone(rows, backbone)
    _neck(rows, neck, levels)
    _head(rows, levels, implicit=bool(head.implicit))
    return DarknetTable(rows.rows, rows.at)


def _backbone(rows: Rows, spec: CspStagesSpec) -> None:
    match spec.stem:
        case "conv":
            rows.conv("backbone.stem.0")
        case "residual":
            for path in ("0", "1", "2.reduce", "2.expand"):
                rows.conv(f"backbone.stem.{path}")
            rows.skip()
        case "space-to-depth":
            rows.skip()
            rows.conv("backbone.stem.1")
    for i, depth in enumerate(spec.depths):
        stage = f"backbone.stage{STEMS[spec.stem].stride << (i + 1)}"
        rows.conv(f"{stage}.0")
        rows.conv(f"{stage}.1.bypass")
        rows.skip()
        rows.conv(f"{stage}.1.main")
        for j in range(depth):
            rows.conv(f"{stage}.1.blocks.{j}.reduce")
            rows.conv(f"{stage}.1.blocks.{j}.expand")
            rows.skip()
        if spec.transition:
            rows.conv(f"{stage}.1.transition")
        rows.skip()
        rows.conv(f"{stage}.1.merge")


def _neck(rows: Rows, spec: CspPanSpec, levels: int) -> None:
    rows.conv("neck.spp.bypass")
    rows.skip()
    for j in range(3):
        rows.conv(f"neck.spp.reduce.{j}")
    rows.skip(6)  # three pools, what they read, and their concatenation
    for j in range(2 * spec.spp_mixes):
        rows.conv(f"neck.spp.mix.{j}")
    rows.skip()
    rows.conv("neck.spp.merge")
    for i in reversed(range(levels - 1)):
        rows.conv(f"neck.narrow.{i}")
        rows.skip(2)
        rows.conv(f"neck.lateral.{i}")
        rows.skip()
        _merge(rows, f"neck.down_merge.{i}", spec.depth)
    for i in range(levels - 1):
        rows.conv(f"neck.reduce.{i}")
        rows.skip()
        _merge(rows, f"neck.up_merge.{i}", spec.depth)


def _merge(rows: Rows, path: str, depth: int) -> None:
    rows.conv(f"{path}.enter")
    rows.conv(f"{path}.bypass")
    rows.skip()
    for j in range(depth):
        rows.conv(f"{path}.blocks.{j}.reduce")
        rows.conv(f"{path}.blocks.{j}.expand")
    rows.skip()
    rows.conv(f"{path}.merge")


def _head(rows: Rows, levels: int, *, implicit: bool) -> None:
    """Implicit vectors stand before the first level, and what applies them in each level."""
    for part in ("add", "multiply") if implicit else ():
        for i in range(levels):
            rows.conv(f"head.levels.{i}.{part}")
    for i in range(levels):
        rows.skip()
        rows.conv(f"head.levels.{i}.stem")
        rows.skip(int(implicit))
        rows.conv(f"head.levels.{i}.project")
        rows.skip(1 + int(implicit))
