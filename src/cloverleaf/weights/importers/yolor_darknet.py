"""Published names of Scaled-YOLOv4 and YOLOR in darknet's form, both ways, and what is peculiar to their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models import yolov4
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.weights.importers.family import Reading, check_num_classes, same_but, same_kinds
from cloverleaf.weights.importers.yolor_darknet_table import DarknetTable, darknet_table, index_of
from cloverleaf.weights.strict import Shape

NAMES = (*yolov4.VARIANTS, "yolor-csp", "yolor-csp-x", "yolor-p6-darknet", "yolor-w6-darknet")
ORIGIN = "these weights come from a project under the GPL-3.0 licence or were made with its code"
_SIZES = {
    "backbone": ("width", "stem_channels", "channels", "depths", "finest"),
    "neck": ("width", "channels", "depth", "spp_mixes", "finest"),
    "head": ("width", "anchors_px", "implicit"),
}


def is_like(keys: Iterable[str]) -> bool:
    """Elements of a list of modules."""
    return any(index_of(key) >= 0 for key in keys)


def covers(spec: DetectorSpec) -> bool:
    """The named variants, whatever their options."""
    return spec.name in NAMES and same_kinds(spec, find_spec(spec.name))


def describe(what: str, shapes: Mapping[str, Shape]) -> None:
    """Only comparing tells the variants apart."""


def recognise_form(keys: Iterable[str]) -> Form:
    """Which form the names belong to; what is folded was published by nobody, and is written by us."""
    keys = tuple(keys)
    if not any(".BatchNorm2d." in key for key in keys):
        return "fused"
    return "training" if any(key.endswith(".implicit") for key in keys) else "deploy"


def read(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
    """The width of the last convolutions says how many classes there are; the anchors are those of the variant."""
    form = recognise_form(state)
    if form == "fused" and any(key.endswith(".implicit") for key in state):
        raise CheckpointError(
            what, "its norms are folded and its implicit knowledge is not",
            "import the file that it was made from, and fold with --form fused",
        )  # fmt: skip
    found = {"training": spec, "deploy": spec.as_deployed(), "fused": spec.as_fused()}[form]
    found = replace(found, num_classes=_num_classes(what, found, state, num_classes))
    return Reading(found, state, layout(found))


def layout(spec: DetectorSpec) -> DarknetLayout:
    """Its table; refuses options that darknet's lists have no elements for."""
    variant = find_spec(spec.name)
    for part, sizes in _SIZES.items():
        if not same_but(getattr(spec, part), getattr(variant, part), sizes):
            raise _inexpressible(spec, f"its {part} has other options than the published one")
    return DarknetLayout(darknet_table(spec))


def likely(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Variants with implicit knowledge, or without, and a list that ends in the same place."""
    end, implicit = max(map(index_of, shapes), default=-1), any(key.endswith(".implicit") for key in shapes)
    return tuple(name for name in NAMES if _last(name) == (end, implicit))


def comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Without the last convolution of each level, which depends on the classes, and without implicit knowledge."""
    last = {index_of(key) for key in shapes if key.endswith(".bias")} - {
        index_of(key) for key in shapes if key.endswith("BatchNorm2d.weight")
    }
    if recognise_form(shapes) == "fused":  # every convolution has a bias
        last = set()
    return {
        key: shape
        for key, shape in shapes.items()
        if not key.endswith((".implicit", "num_batches_tracked")) and index_of(key) not in last
    }


@dataclass(frozen=True, slots=True)
class DarknetLayout:
    """A `Layout` by places in a list; anchors are not published."""

    table: DarknetTable

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """In the order of the list."""
        named = {self.table.published(k): v for k, v in model.state_dict().items() if k != "head.anchors_px"}
        return {key: named[key] for key in sorted(named, key=index_of)}

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With the anchors that the model has."""
        own = model.state_dict()
        return {key: value if key == "head.anchors_px" else state[self.table.published(key)]
                for key, value in own.items()}  # fmt: skip


def _num_classes(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], wanted: int | None) -> int:
    assert isinstance(spec.head, AnchorHeadSpec)
    key, anchors = darknet_table(spec).published("head.levels.0.project.bias"), len(spec.head.anchors_px[0])
    bias = state.get(key)
    if bias is None:
        return wanted or spec.num_classes
    found, rest = divmod(bias.numel(), anchors)
    if rest or found < 6:
        raise CheckpointError(
            what, f"{key} has {bias.numel()} values, for {anchors} anchors per level", "check the variant"
        )
    return check_num_classes(what, found - 5, wanted)


@cache
def _last(name: str) -> tuple[int, bool]:
    """The last place with parameters, and whether there is implicit knowledge."""
    spec = find_spec(name)
    assert isinstance(spec.head, AnchorHeadSpec)
    return max(map(int, darknet_table(spec).rows.values())), bool(spec.head.implicit)


def _inexpressible(spec: DetectorSpec, why: str) -> CheckpointError:
    return CheckpointError(
        f"this {spec.name} cannot be written with published names", why, "use cloverleaf.save, which keeps everything"
    )
