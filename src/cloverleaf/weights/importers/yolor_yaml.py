"""Published names of YOLOR in the form of its paper, and in the form published with YOLOv7: rows of a layer table.

Fused, the paper's code leaves the shared normalisations and the implicit knowledge in force, and YOLOv7's code leaves
implicit knowledge standing that it has folded already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.models.yolor_paper import VARIANTS
from cloverleaf.weights.importers.family import Reading, same_but, same_kinds
from cloverleaf.weights.importers.names import NameTable, has_bottlenecks, head_prefix
from cloverleaf.weights.importers.yolor_yaml_table import Signature, joins, name_table, signature
from cloverleaf.weights.strict import Shape

NAMES = tuple(VARIANTS)
ORIGIN = "these weights come from a project under the GPL-3.0 licence or were made with its code"
_SIZES = {
    "backbone": ("width", "stem_channels", "channels", "depths", "finest"),
    "neck": ("width", "channels", "depth", "finest"),
    "head": ("width", "anchors_px", "implicit"),
}
_LEVEL = ("m.{}.weight", "m.{}.bias", "ia.{}.implicit", "im.{}.implicit")
_IMPLICIT = re.compile(r"(ia|im)\.\d+\.")


def is_like(keys: Iterable[str]) -> bool:
    """Rows of a layer table, some of them chains of bottlenecks."""
    return has_bottlenecks(keys)


def covers(spec: DetectorSpec) -> bool:
    """The named variants, whatever their options."""
    return spec.name in NAMES and same_kinds(spec, VARIANTS[spec.name].spec)


def describe(what: str, shapes: Mapping[str, Shape]) -> None:
    """Only comparing tells the variants apart."""


def recognise_form(keys: Iterable[str]) -> Form:
    """Which published form the names belong to."""
    keys = tuple(keys)
    if any(key.endswith(".conv.bias") for key in keys):
        return "fused"
    return "training" if any(".ia." in key for key in keys) else "deploy"


def read(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
    """Implicit knowledge of a fused form is folded where it is in force, and left out where it is not."""
    form = recognise_form(state)
    table = name_table(spec)
    if form == "fused":
        idle = not signature(spec).shared
        state = _without_implicit(table, state) if idle else _with_implicit_folded(table, state)
    whole = replace(spec, num_classes=table.num_classes(what, state, num_classes) or spec.num_classes)
    forms = {"training": whole, "deploy": whole.as_deployed(), "fused": whole.as_fused()}
    return Reading(forms[form], state, layout(forms[form]))


def layout(spec: DetectorSpec) -> YolorLayout:
    """Its name table; refuses options that the published lists have no rows for."""
    variant = find_spec(spec.name)
    for part, sizes in _SIZES.items():
        if not same_but(getattr(spec, part), getattr(variant, part), sizes):
            raise CheckpointError(
                f"this {spec.name} cannot be written with published names",
                f"its {part} has other options than the published one", "use cloverleaf.save, which keeps everything",
            )  # fmt: skip
    return YolorLayout(name_table(spec), joins(spec) if spec.fused else {})


def likely(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Variants with the same widths, numbers of bottlenecks and kind of normalisation."""
    head = head_prefix(shapes)
    levels = [shape[1] for key, shape in shapes.items() if head and re.fullmatch(rf"{head}m\.\d+\.weight", key)]
    bottlenecks = sum(key.endswith(".cv2.conv.weight") and ".m." in key for key in shapes)
    found = Signature(tuple(levels), bottlenecks, any(re.fullmatch(r"model\.\d+\.cv2\.weight", key) for key in shapes))
    return tuple(name for name in NAMES if signature(find_spec(name)) == found)


def comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Without the projections and the implicit knowledge of the head."""
    head = head_prefix(shapes)
    return {
        key: shape
        for key, shape in shapes.items()
        if not key.endswith("num_batches_tracked")
        and not (head and key.startswith((f"{head}m.", f"{head}ia.", f"{head}im.")))
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class YolorLayout:
    """A `Layout` by rows; anchors are published twice.

    Attributes:
        table: of names.
        joins: our paths of the shared normalisations that are cut and folded, with their epsilon; none but of a fused
            model.
    """

    table: NameTable
    joins: Mapping[str, float]

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """In the order of the rows; a cut normalisation is one again, which does what its parts do."""
        state = _with_norms(model.state_dict(), self.joins)
        theirs = {published: state[key] for key, published in self.table.published(state).items()}
        theirs |= self.table.anchors_to_published(model.anchors_px, model.strides)
        return {key: theirs[key] for key in self.table.in_order(theirs)}

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The two copies of the anchors must agree."""
        keys = _with_norms(model.state_dict(), self.joins)
        tensors = {key: state[theirs] for key, theirs in self.table.published(keys).items()}
        for path, eps in self.joins.items():
            _fold(tensors, path, eps)
        return tensors | {"head.anchors_px": self.table.anchors_to_ours(what, state, model.strides)}


def _with_norms(state: Mapping[str, Tensor], joins: Mapping[str, float]) -> dict[str, Tensor]:
    """A fused state of ours with the shared normalisations that it would have before; mean 0, deviation 1."""
    opened = dict(state)
    for path, eps in joins.items():
        bias = torch.cat([opened.pop(f"{path}.{part}.bias") for part in ("transition", "bypass")])
        scale = torch.ones_like(bias)
        main = opened[f"{path}.transition.weight"]
        if main.shape[1] == 1:  # one factor per channel
            scale[: len(main)] = opened.pop(f"{path}.transition.weight").flatten()
        norm = {
            "weight": scale, "bias": bias, "running_mean": torch.zeros_like(bias),
            "running_var": torch.full_like(bias, 1 - eps), "num_batches_tracked": torch.tensor(0),
        }  # fmt: skip
        opened |= {f"{path}.norm.{key}": value for key, value in norm.items()}
    return opened


def _fold(state: dict[str, Tensor], path: str, eps: float) -> None:
    """The reverse, in place: the normalisation of a joint is cut, and each part folded into its path."""
    gamma, beta, mean, var = (
        state.pop(f"{path}.norm.{key}").float() for key in ("weight", "bias", "running_mean", "running_var")
    )
    state.pop(f"{path}.norm.num_batches_tracked")
    width = len(gamma) // 2
    scale = gamma / torch.sqrt(var + eps)
    shift = beta - scale * mean
    for part, channels in (("transition", slice(0, width)), ("bypass", slice(width, None))):
        factor = scale[channels, None, None, None]
        weight = state.get(f"{path}.{part}.weight")
        state[f"{path}.{part}.weight"] = factor if weight is None else weight.float() * factor
        state[f"{path}.{part}.bias"] = shift[channels]


def _without_implicit(table: NameTable, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in state.items()
        if not (key.startswith(table.head) and _IMPLICIT.match(key.removeprefix(table.head)))
    }  # fmt: skip


def _with_implicit_folded(table: NameTable, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W' = m W, b' = m (b + W a) of every level that is complete and fits; others stay as they are."""
    folded = dict(state)
    for key in state:
        level = re.fullmatch(rf"{table.head}m\.(\d+)\.weight", key)
        names = [f"{table.head}{part.format(level[1])}" for part in _LEVEL] if level else []
        if not names or not all(name in state for name in names):
            continue
        weight, bias, add, multiply = (state[name].float() for name in names)
        if weight.shape[:2] != (multiply.numel(), add.numel()) or len(weight) != bias.numel():
            continue
        factor = multiply.flatten()
        folded[names[0]] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        folded[names[1]] = factor * (bias.flatten() + weight.flatten(1) @ add.flatten())
        del folded[names[2]], folded[names[3]]
    return folded
