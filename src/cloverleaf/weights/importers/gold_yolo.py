"""Published names of Gold-YOLO (arXiv 2309.11331), both ways, and what is peculiar to its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cloverleaf.backbones.efficient_rep import CspBepSpec, EfficientRepSpec
from cloverleaf.errors import CheckpointError
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.layers.rep import fold_norm
from cloverleaf.layers.style import scale_width
from cloverleaf.models.detector import Detector
from cloverleaf.models.gold_yolo import VARIANTS
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec
from cloverleaf.weights.importers import gold_yolo_table as table
from cloverleaf.weights.importers.family import Reading, check_num_classes, same_kinds
from cloverleaf.weights.strict import Shape

NAMES = tuple(VARIANTS)
ORIGIN = "these weights come from a project under the GPL-3.0 licence or were made with its code"
_BINS = 17  # of the constants, which the published head has whether or not it predicts distributions
_RAMPS: Mapping[str, Shape] = {"detect.proj": (_BINS,), "detect.proj_conv.weight": (1, _BINS, 1, 1)}
_STEM = re.compile(r"backbone\.stem\.(rbr_dense\.conv|rbr_reparam|block\.conv)\.weight")
_NOT_COMPARED = re.compile(r"num_batches_tracked$|^detect\.((cls|reg)_preds|proj)")  # optional, or of the head's form


def is_like(keys: Iterable[str]) -> bool:
    """Stages of the backbone, modules of the neck."""
    return any(key.startswith(("backbone.ERBlock_", "neck.low_IFM.", "neck.Inject_")) for key in keys)


def covers(spec: DetectorSpec) -> bool:
    """The named variants, whatever their options."""
    return spec.name in NAMES and same_kinds(spec, VARIANTS[spec.name].spec)


def describe(what: str, shapes: Mapping[str, Shape]) -> None:
    """Only comparing tells the variants apart."""


def recognise_form(keys: Iterable[str]) -> Form:
    """The fused form keeps BatchNorm in the neck, but not in the backbone."""
    keys = tuple(keys)
    if any(key.startswith("backbone.") for key in keys) and not any(
        key.startswith("backbone.") and ".bn." in key for key in keys
    ):
        return "fused"
    extra = ("detect.reg_preds_lrtb.", "detect.cls_preds_ab.", "detect.reg_preds_ab.")
    return "training" if any(key.startswith(extra) for key in keys) else "deploy"


def read(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
    """The branches of the head say its form, and their widths whether distances are distributions."""
    head, fused = _head(spec, state), recognise_form(state) == "fused"
    if fused:
        state, head = _in_force(state, head), head.deployed()
    found = replace(spec, head=head, fused=fused)
    bias = state.get(f"detect.cls_preds{'_af' if head.aided else ''}.0.bias")
    if bias is not None and bias.numel():
        found = replace(found, num_classes=check_num_classes(what, bias.numel(), num_classes))
    elif num_classes is not None:
        found = replace(found, num_classes=num_classes)
    return Reading(found, state, layout(found))


def layout(spec: DetectorSpec) -> GoldYoloLayout:
    """Its table; refuses options that the published code has not, or keeps outside the state dict."""
    variant, head = VARIANTS[spec.name].spec, spec.head
    neck, published_neck = spec.neck, variant.neck
    assert isinstance(published_neck, GatherDistributeSpec)
    if isinstance(neck, GatherDistributeSpec):  # only training skips branches
        published_neck = replace(published_neck, drop_path=neck.drop_path)
    if spec.backbone != variant.backbone or neck != published_neck:
        raise _inexpressible(spec, "its backbone or neck has other options than the published one")
    if not isinstance(head, DenseHeadSpec) or head.activation != "silu" or head.reg_max not in (0, _BINS - 1):
        raise _inexpressible(spec, f"its head is not one of the published ones (reg_max 0 or {_BINS - 1})")
    if head.aided and (head.direct or head.anchors_px is not None):
        raise _inexpressible(spec, "its head has two training branches, or anchors of its own")
    return GoldYoloLayout(spec)


def likely(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Variants of the same width."""
    width = next((shape[0] for key, shape in shapes.items() if _STEM.fullmatch(key) and shape), None)
    return tuple(name for name in NAMES if width == scale_width(64, _backbone(VARIANTS[name].spec).width))


def comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Without the last convolutions, which depend on the classes and on the form of the head."""
    return {key: shape for key, shape in shapes.items() if not _NOT_COMPARED.search(key)}


@dataclass(frozen=True, slots=True)
class GoldYoloLayout:
    """A `Layout` of a detector of ``spec``.

    The published deploy form keeps the BatchNorm of some convolutions. Ours has none of them in fused form: they are
    folded on import, and on export an equal one without effect is written.
    """

    spec: DetectorSpec

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """With the constants of the published head, in front of it."""
        state = model.state_dict()
        if self.spec.fused:
            state = _with_norms(state, self._places(state))
        named = {theirs: state[ours] for place in self._places(state) for ours, theirs in place.names(state)}
        left = len(state) - len(named) - ("head.anchors_px" in state)
        assert not left, f"{left} tensors of {self.spec.name} have no published name"
        ramps = {key: _ramp(shape) for key, shape in _RAMPS.items()}
        before = {key: value for key, value in named.items() if not key.startswith("detect.")}
        return before | ramps | named

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The constants must be what they are; the anchors are not in the state dict."""
        for key, shape in _RAMPS.items():
            if not torch.equal(state[key].float(), _ramp(shape)):
                raise CheckpointError(what, f"{key} is not 0, 1 ... {_BINS - 1}", "the checkpoint is inconsistent")
        own = model.state_dict()
        places = self._places(own)
        if self.spec.fused:
            own = _with_norms(own, places)
        tensors = {ours: state[theirs] for place in places for ours, theirs in place.names(own)}
        if self.spec.fused:
            tensors = _without_norms(tensors, places)
        return tensors | {key: own[key] for key in ("head.anchors_px",) if key in own}

    def _places(self, keys: Mapping[str, Tensor]) -> list[table.Place]:
        neck, head = self.spec.neck, self.spec.head
        assert isinstance(neck, GatherDistributeSpec) and isinstance(head, DenseHeadSpec)
        return [*table.backbone(_backbone(self.spec), keys), *table.neck(neck, keys), *table.head(head)]


def _head(spec: DetectorSpec, state: Mapping[str, Tensor]) -> DenseHeadSpec:
    head = spec.head
    assert isinstance(head, DenseHeadSpec)
    aided = any(key.startswith(("detect.cls_preds_a", "detect.reg_preds_a")) for key in state)
    direct = any(key.startswith("detect.reg_preds_lrtb.") for key in state)
    bias = state.get(f"detect.reg_preds{'_af' if aided else ''}.0.bias")
    plain = bias is not None and bias.numel() == 4
    return replace(head, aided=aided, direct=direct, reg_max=0 if plain else head.reg_max)


def _in_force(state: Mapping[str, Tensor], head: DenseHeadSpec) -> dict[str, Tensor]:
    """Of a head with training branches those that predict, under the names of a head without."""
    renamed = {"detect.cls_preds_af.": "detect.cls_preds.", "detect.reg_preds_af.": "detect.reg_preds."}
    idle: tuple[str, ...] = ("detect.cls_preds_ab.", "detect.reg_preds_ab.")
    if head.direct:
        renamed, idle = {"detect.reg_preds_lrtb.": "detect.reg_preds."}, ("detect.reg_preds.",)
    found = {}
    for key, value in state.items():
        if not key.startswith(idle):
            old = next((old for old in renamed if key.startswith(old)), "")
            found[renamed[old] + key.removeprefix(old) if old else key] = value
    return found


def _with_norms(state: Mapping[str, Tensor], places: Iterable[table.Place]) -> dict[str, Tensor]:
    """A fused state dict of ours with a BatchNorm of no effect where the published deploy form has one."""
    unfolded = dict(state)
    for place in places:
        if place.kind.kept_eps is not None:
            bias = unfolded.pop(f"{place.ours}.conv.bias")
            variance = torch.ones_like(bias)
            unfolded |= {
                f"{place.ours}.norm.weight": torch.sqrt(variance + place.kind.kept_eps),
                f"{place.ours}.norm.bias": bias,
                f"{place.ours}.norm.running_mean": torch.zeros_like(bias),
                f"{place.ours}.norm.running_var": variance,
                f"{place.ours}.norm.num_batches_tracked": torch.zeros((), dtype=torch.int64),
            }
    return unfolded


def _without_norms(state: Mapping[str, Tensor], places: Iterable[table.Place]) -> dict[str, Tensor]:
    """The inverse of `_with_norms`, for any BatchNorm; computed in float32."""
    folded = dict(state)
    for place in places:
        if place.kind.kept_eps is not None:
            names = [key for key in state if key.startswith(f"{place.ours}.norm.")]
            values = {key.rpartition(".")[2]: folded.pop(key) for key in names}
            norm = nn.BatchNorm2d(len(values["weight"]), eps=place.kind.kept_eps)
            norm.load_state_dict(values)
            key = f"{place.ours}.conv"
            folded[f"{key}.weight"], folded[f"{key}.bias"] = fold_norm(state[f"{key}.weight"].float(), None, norm)
    return folded


def _backbone(spec: DetectorSpec) -> EfficientRepSpec | CspBepSpec:
    assert isinstance(spec.backbone, EfficientRepSpec | CspBepSpec)
    return spec.backbone


def _ramp(shape: Shape) -> Tensor:
    return torch.arange(_BINS, dtype=torch.float32).reshape(shape)


def _inexpressible(spec: DetectorSpec, why: str) -> CheckpointError:
    return CheckpointError(
        f"this {spec.name} cannot be written with published names", why, "use cloverleaf.save, which keeps everything"
    )
