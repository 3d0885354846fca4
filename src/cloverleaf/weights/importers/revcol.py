"""Published names of RevCol (arXiv 2212.11696), both ways: classifiers with and without supervised columns, backbones.

Widths, blocks, columns, kernel size and the fusion of revcol-huge follow from the shapes, so that models of other sizes
than the named ones are read too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from torch import Tensor, nn

from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec
from cloverleaf.errors import CheckpointError
from cloverleaf.heads.classify import ClassifyHeadSpec
from cloverleaf.heads.supervision import ColumnSupervisionSpec
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.revcol import VARIANTS
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.necks.none import NoNeckSpec
from cloverleaf.weights.importers import revcol_table as table
from cloverleaf.weights.importers.family import Reading, check_num_classes
from cloverleaf.weights.strict import Shape, check_fit

NAMES = tuple(VARIANTS)
OTHER = "revcol+none+classify"  # the name of a model of another size
PREFIX = "backbone."  # of a backbone in published detectors and segmenters
ORIGIN = "these weights were published by the authors of RevCol or made with their code, whose licence holds for them"
_SUPERVISED, _START = 4, 0.5  # classifiers of a model with supervised columns; initial value of the scales
_OTHERS = re.compile(r"^(cls|cls_blocks|decoder_blocks)\.")
_UNEQUAL = re.compile(r"\.dwconv\.weight$")  # kernels may be enlarged


def is_like(keys: Iterable[str]) -> bool:
    """Columns, alone or in a detector."""
    return any(re.match(r"(backbone\.)?subnet\d+\.", key) for key in keys)


def covers(spec: DetectorSpec) -> bool:
    """Any classifier on this backbone."""
    parts = isinstance(spec.backbone, RevColSpec), isinstance(spec.neck, NoNeckSpec)
    return all(parts) and isinstance(spec.head, ClassifyHeadSpec)


def recognise_form(keys: Iterable[str]) -> Form:
    """Supervised columns are for training only."""
    return "training" if any(key.startswith(("cls_blocks.", "decoder_blocks.")) for key in keys) else "deploy"


def describe(what: str, shapes: Mapping[str, Shape]) -> DetectorSpec:
    """The variant of that structure, with its drop path, or a composition."""
    found = structure(what, without_prefix(shapes))
    name = next((name for name in NAMES if _same(_backbone(VARIANTS[name].spec), found)), OTHER)
    return VARIANTS[name].spec if name in VARIANTS else replace(find_spec(name), backbone=found)


def read(what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
    """The size of a variant is as published but for the kernels; that of a composition follows from the shapes."""
    if any(key.startswith(PREFIX) for key in state) or not any(key.startswith("cls") for key in state):
        raise CheckpointError(
            what, "it holds a backbone without a classifier",
            "take the backbone alone, for train --backbone-weights: cloverleaf import FILE --backbone",
        )  # fmt: skip
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    found, backbone = structure(what, shapes), _backbone(spec)
    if spec.name in VARIANTS:
        backbone = replace(backbone, kernel_size=found.kernel_size)
    else:
        backbone = replace(found, drop_path=backbone.drop_path, memory=backbone.memory, normalize=backbone.normalize)
    supervision, last = _supervision(what, shapes, backbone)
    bias = state.get(f"{last}.classifier.1.bias")
    classes = spec.num_classes if num_classes is None else num_classes
    if bias is not None and bias.numel():
        classes = check_num_classes(what, bias.numel(), num_classes)
    made = replace(spec, backbone=backbone, supervision=supervision, num_classes=classes)
    _check_names(what, layout(made).pairs(), state, backbone)
    return Reading(made, state, layout(made))


def layout(spec: DetectorSpec) -> RevColLayout:
    """Its table; refuses what the published code has not."""
    backbone, supervision = _backbone(spec), spec.supervision
    check_published(spec.name, backbone)
    if supervision is None:
        return RevColLayout(backbone, 0, "none")
    if not isinstance(supervision, ColumnSupervisionSpec) or supervision.heads is False:
        raise _inexpressible(spec.name, "its further supervision is another than classifiers on earlier columns")
    if supervision.parts not in (None, _SUPERVISED) or backbone.columns % _SUPERVISED:
        raise _inexpressible(spec.name, "published ones supervise every quarter of the columns")
    return RevColLayout(backbone, _SUPERVISED - 1, supervision.decoder or _usual_decoder(spec.num_classes))


def likely(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Variants of the same structure."""
    try:
        found = structure("checkpoint", without_prefix(shapes))
    except CheckpointError:
        return ()
    return tuple(name for name in NAMES if _same(_backbone(VARIANTS[name].spec), found))


def comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The backbone alone, without its kernels."""
    kept = {key: shape for key, shape in without_prefix(shapes).items() if not _OTHERS.match(key)}
    return {key: () if _UNEQUAL.search(key) else shape for key, shape in kept.items()}


@dataclass(frozen=True, slots=True)
class RevColLayout:
    """A `Layout` of a classifier.

    Attributes:
        backbone: its options.
        supervised: number of supervised columns before the last one.
        decoder: kind of their decoders.
    """

    backbone: RevColSpec
    supervised: int
    decoder: table.Decoder

    def pairs(self) -> list[table.Pair]:
        """Our names and the published ones."""
        return [*table.backbone(self.backbone), *table.heads(self.supervised, self.decoder)]

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """The scales of the first column, which ours has not, have their initial value."""
        return published_state(model.state_dict(), self.pairs(), self.backbone)

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Matrices become 1x1 convolutions."""
        return own_state(model, self.pairs(), state)


def published_state(state: Mapping[str, Tensor], pairs: Sequence[table.Pair], spec: RevColSpec) -> dict[str, Tensor]:
    """Published names and tensors of a state dict of ours, in the order of ``pairs``."""
    named: dict[str, Tensor] = {}
    for ours, theirs in pairs:
        if ours is None:
            like = next(iter(state.values()))
            named[theirs] = like.new_full((1, spec.channels[int(theirs[-1])], 1, 1), _START)
        else:
            named[theirs] = state[ours].flatten(1) if table.is_matrix(theirs) else state[ours]
    left = len(state) - sum(1 for ours, _ in pairs if ours is not None)
    assert not left, f"{left} tensors have no published name"
    return named


def own_state(module: nn.Module, pairs: Sequence[table.Pair], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``module`` from a published state dict, which is known to fit."""
    own = module.state_dict()
    return {ours: state[theirs].reshape(own[ours].shape) for ours, theirs in pairs if ours is not None}


def structure(what: str, shapes: Mapping[str, Shape]) -> RevColSpec:
    """Options of the backbone that published names and shapes, without prefix, are of.

    Raises:
        CheckpointError: they do not say it, or contradict each other; it begins with ``what``.
    """
    keys = tuple(shapes)
    columns = 1 + max(_numbers(r"subnet(\d+)\.", keys), default=-1)
    layers = tuple(1 + max(_numbers(rf"subnet\d+\.level{k}\.blocks\.(\d+)\.", keys), default=-1) for k in range(4))
    channels = tuple(_first(rf"subnet\d+\.level{k}\.blocks\.\d+\.gamma", shapes, 0) for k in range(4))
    values = {
        "channels": channels, "layers": layers, "columns": columns,
        "kernel_size": _first(r"subnet\d+\.level\d\.blocks\.\d+\.dwconv\.weight", shapes, -1),
        "far_fusion": any(".fusion.up2." in key for key in keys),
    }  # fmt: skip
    try:
        return RevColSpec(**values)  # type: ignore[arg-type]  # checked by it
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            what, f"its names and shapes say {option} = {first['input']!r}: {first['msg']}", "get the file again"
        ) from error


def without_prefix(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Of a detector the backbone alone."""
    of_detector = any(key.startswith(PREFIX) for key in shapes)
    return {k.removeprefix(PREFIX): v for k, v in shapes.items() if k.startswith(PREFIX) or not of_detector}


def check_published(name: str, spec: RevColSpec) -> None:
    """Raise `CheckpointError` where published names cannot express a backbone."""
    if spec.block != "convnext" or spec.fusion != "sum":
        raise _inexpressible(name, "its backbone has other blocks or another fusion than the published one")


def read_backbone(what: str, state: Mapping[str, Tensor]) -> tuple[RevColSpec, RevCol, tuple[str, ...]]:
    """The backbone in a published classifier, detector or segmenter.

    Returns:
        Its options, the module in evaluation mode, and the published names that are not of it.

    Raises:
        CheckpointError: tensors of it are missing or mis-shaped; it begins with ``what``.
    """
    prefix = PREFIX if any(key.startswith(PREFIX) for key in state) else ""
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    own = {key: value for key, value in own.items() if key.startswith(("stem.", "subnet"))}
    shapes = {key: tuple(value.shape) for key, value in own.items()}
    spec = structure(what, shapes)
    pairs = list(table.backbone(spec, ""))
    _check_names(what, pairs, own, spec)
    backbone = spec.build().eval()
    expected = published_state(backbone.state_dict(), pairs, spec)
    check_fit(what, {key: tuple(value.shape) for key, value in expected.items()}, shapes, "get the file again")
    backbone.load_state_dict({key: value.float() for key, value in own_state(backbone, pairs, own).items()})
    left = tuple(key for key in state if not (key.startswith(prefix) and key.removeprefix(prefix) in own))
    return spec, backbone, left


def export_backbone(backbone: RevCol, spec: RevColSpec) -> dict[str, Tensor]:
    """Published names and tensors of a backbone, without prefix, in the published order.

    Raises:
        CheckpointError: published names cannot express it.
    """
    check_published("backbone", spec)
    return published_state(backbone.state_dict(), list(table.backbone(spec, "")), spec)


def _supervision(
    what: str, shapes: Mapping[str, Shape], backbone: RevColSpec
) -> tuple[ColumnSupervisionSpec | None, str]:
    """That of the names, and the published name of the model's own classifier."""
    heads = 1 + max(_numbers(r"cls_blocks\.(\d+)\.", shapes), default=-1)
    if not heads:
        return None, "cls"
    if heads != _SUPERVISED or backbone.columns % _SUPERVISED:
        raise CheckpointError(
            what, f"it has {heads} classifiers on {backbone.columns} columns", "published models have four, one after "
            "each quarter of the columns; get the file again",
        )  # fmt: skip
    decoders = [key for key in shapes if key.startswith("decoder_blocks.")]
    full = any(".proj_layers." in key or ".normal_layers." in key for key in decoders)
    kind: table.Decoder = "full" if full else "simple" if decoders else "none"
    return ColumnSupervisionSpec(decoder=kind), f"cls_blocks.{heads - 1}"


def _check_names(what: str, pairs: Iterable[table.Pair], state: Mapping[str, Tensor], spec: RevColSpec) -> None:
    """Before anything as large as the names say is built: what is missing, and whether there is enough of it."""
    theirs = [name for _, name in pairs]
    claimed = spec.columns * sum(8 * count * width**2 for count, width in zip(spec.layers, spec.channels, strict=True))
    if claimed > _stored(state):
        check_fit(what, dict.fromkeys(theirs, ()), dict.fromkeys(state, ()), "get the file again")
        raise CheckpointError(what, "its tensors are smaller than the others say", "get the file again")


def _stored(state: Mapping[str, Tensor]) -> int:
    """Values that are there; expanded tensors claim more."""
    storages = ((value.untyped_storage(), value.element_size()) for value in state.values())
    return sum({storage.data_ptr(): storage.nbytes() // size for storage, size in storages}.values())


def _same(one: RevColSpec, other: RevColSpec) -> bool:
    return _size(one) == _size(other)


def _size(spec: RevColSpec) -> tuple[object, ...]:
    return spec.channels, spec.layers, spec.columns, spec.far_fusion


def _numbers(pattern: str, keys: Iterable[str]) -> Iterator[int]:
    """The group of every match; numbers of more than three digits are of no model."""
    matches = (re.match(pattern, key) for key in keys)
    return (min(int(match[1][:4]), 9999) for match in matches if match)


def _first(pattern: str, shapes: Mapping[str, Shape], axis: int) -> int:
    """One side of the first tensor of that name; 0 where there is none."""
    return next((shape[axis] for key, shape in shapes.items() if shape and re.fullmatch(pattern, key)), 0)


def _usual_decoder(num_classes: int) -> table.Decoder:
    return "full" if num_classes <= 1000 else "simple"


def _backbone(spec: DetectorSpec) -> RevColSpec:
    assert isinstance(spec.backbone, RevColSpec)
    return spec.backbone


def _inexpressible(name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"this {name} cannot be written with published names", why, "use cloverleaf.save, which keeps everything"
    )
