"""The parts that a detector can be composed of: literal tables of names, and strict reading of their options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cloverleaf.backbones.csp import CspTinySpec
from cloverleaf.backbones.csp_darknet import CspDarknetSpec
from cloverleaf.backbones.csp_stages import CspStagesSpec
from cloverleaf.backbones.efficient_rep import CspBepSpec, EfficientRepSpec
from cloverleaf.backbones.elan import ElanSpec, ElanTinySpec
from cloverleaf.backbones.gelan import GelanSpec
from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.backbones.revcol.variants import VARIANTS as REVCOL_VARIANTS
from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.errors import ConfigError, UnknownModelError, suggest
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.heads.cascade_mask_rcnn import CascadeMaskRcnnHeadSpec
from cloverleaf.heads.classify import ClassifyHeadSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.heads.mask_rcnn import MaskRcnnHeadSpec
from cloverleaf.heads.multi import MultiHeadSpec
from cloverleaf.heads.point_rend import PointRendHeadSpec
from cloverleaf.heads.supervision import ColumnSupervisionSpec
from cloverleaf.heads.uper_net import UperNetHeadSpec
from cloverleaf.models.reversible_branch import ReversibleBranchSpec
from cloverleaf.necks.c2f_pan import C2fPanSpec
from cloverleaf.necks.c3_pan import C3PanSpec
from cloverleaf.necks.csp_pan import CspPanSpec
from cloverleaf.necks.elan_pan import ElanPanSpec
from cloverleaf.necks.fpn import FpnSpec
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec
from cloverleaf.necks.gelan_pan import GelanPanSpec
from cloverleaf.necks.none import NoNeckSpec
from cloverleaf.necks.rep_pan import RepPanSpec

BACKBONES: Mapping[str, type] = {
    "csp-bep": CspBepSpec,
    "csp-darknet": CspDarknetSpec,
    "csp-stages": CspStagesSpec,
    "csp-tiny": CspTinySpec,
    "efficient-rep": EfficientRepSpec,
    "elan": ElanSpec,
    "elan-tiny": ElanTinySpec,
    "gelan": GelanSpec,
    "revcol": RevColSpec,
    "timm": TimmSpec,
}
NECKS: Mapping[str, type] = {
    "c2f-pan": C2fPanSpec,
    "c3-pan": C3PanSpec,
    "csp-pan": CspPanSpec,
    "elan-pan": ElanPanSpec,
    "fpn": FpnSpec,
    "gather-distribute": GatherDistributeSpec,
    "gelan-pan": GelanPanSpec,
    "none": NoNeckSpec,
    "rep-pan": RepPanSpec,
}
HEADS: Mapping[str, type] = {
    "anchor": AnchorHeadSpec,
    "cascade-mask-rcnn": CascadeMaskRcnnHeadSpec,
    "classify": ClassifyHeadSpec,
    "dense": DenseHeadSpec,
    "mask-rcnn": MaskRcnnHeadSpec,
    "multi": MultiHeadSpec,
    "point-rend": PointRendHeadSpec,
    "uper-net": UperNetHeadSpec,
}
SUPERVISIONS: Mapping[str, type] = {"columns": ColumnSupervisionSpec, "reversible-branch": ReversibleBranchSpec}
TABLES: Mapping[str, Mapping[str, type]] = {"backbone": BACKBONES, "neck": NECKS, "head": HEADS}
OPTIONAL_TABLES: Mapping[str, Mapping[str, type]] = {"supervision": SUPERVISIONS}
ALL_TABLES: Mapping[str, Mapping[str, type]] = {**TABLES, **OPTIONAL_TABLES}

# Names for parts with other options than the default ones.
PRESETS: Mapping[str, Mapping[str, Any]] = {"backbone": REVCOL_VARIANTS}


def named(part: str, name: str) -> Any:
    """The part of that name: a preset, a type with default options, or ``timm/NAME``, any convolutional model of timm.

    Raises:
        UnknownModelError: there is none.
    """
    table, presets = ALL_TABLES[part], PRESETS.get(part, {})
    if name in presets:
        return presets[name]
    if part == "backbone" and name.startswith("timm/"):
        return TimmSpec(model=name.removeprefix("timm/"))
    if name not in table or name == "timm":
        known = [*presets, *(key for key in table if key != "timm"), *(["timm/NAME"] if part == "backbone" else [])]
        raise UnknownModelError(f"no {part} {name!r}", "it is not among the known parts", suggest(name, known))
    return table[name]()


def backbone_spec(name: str) -> Any:
    """Options of the backbone of that name; errors as `named`."""
    return named("backbone", name)


def from_dict(part: str, values: Mapping[str, Any]) -> Any:
    """Options of a part from plain values with a ``type``.

    Args:
        part: `backbone`, `neck`, `head` or `supervision`.
        values: as `to_dict` wrote them; options left out keep their defaults.

    Raises:
        ConfigError: an unknown type or option, or a value of the wrong type or range.
    """
    table = ALL_TABLES[part]
    name = str(values.get("type")) if isinstance(values, Mapping) else repr(values)
    if name not in table:
        raise ConfigError(f"no {part} {name!r}", "it is not among the known parts", suggest(name, table))
    return _validated(part, table[name], values)


def override(part: str, spec: Any, values: Mapping[str, Any]) -> Any:
    """A copy of ``spec`` with options changed; errors as `from_dict`."""
    if values.get("type", spec.type) != spec.type:
        raise ConfigError(
            f"{part}.type = {values['type']!r} is not possible here",
            f"this model has {part} {spec.type!r}",
            "compose a model by name: BACKBONE+NECK+HEAD",
        )
    if isinstance(spec, MultiHeadSpec) and "boxes" in values:
        values = {**values, "boxes": to_dict(_changed_boxes(spec.boxes, values["boxes"]))}
    return _validated(part, type(spec), {**to_dict(spec), **values})


def changed(part: str, present: Any, values: Mapping[str, Any]) -> Any:
    """``present`` with options changed; or, where ``values`` have a ``type``, another part and options of it.

    The head `multi` takes a present head for boxes as its own.

    Args:
        part: `backbone`, `neck`, `head` or `supervision`.
        present: options of the part that there is.
        values: options; the ``type`` is any name of `named`.

    Raises:
        UnknownModelError: no part of that name.
        ConfigError: an unknown option, or a value of the wrong type or range.
    """
    name = values.get("type")
    if name is None:
        return override(part, present, values)
    if name == "multi":
        return override(part, with_tasks(present), values)
    if name in ALL_TABLES[part]:
        return from_dict(part, values)
    return override(part, named(part, str(name)), {key: value for key, value in values.items() if key != "type"})


def with_tasks(head: Any) -> MultiHeadSpec:
    """The head `multi` around a head for boxes; one that it is already stays as it is.

    Raises:
        ConfigError: the head is not for boxes.
    """
    if isinstance(head, MultiHeadSpec):
        return head
    if head.task != "detect":
        raise ConfigError(
            "head.type = 'multi' is not possible here", f"this model has head {head.type!r}, which is not for boxes",
            "choose a detector such as yolov7-tiny, or compose BACKBONE+NECK+multi",
        )  # fmt: skip
    return MultiHeadSpec(boxes=head)


def _changed_boxes(present: Any, values: Any) -> Any:
    """The head for boxes of a head for several tasks, changed as `changed` does."""
    if not isinstance(values, Mapping | str):
        raise ConfigError(
            f"head.boxes = {values!r} is not valid", "a head is given by its name, its options by a mapping",
            'write e.g. head.boxes={"width": 0.5}, or its name',
        )  # fmt: skip
    return _for_boxes(changed("head", present, {"type": values} if isinstance(values, str) else values))


def _for_boxes(head: Any) -> Any:
    if head.task != "detect":
        raise ConfigError(
            f"head.boxes = {head.type!r} is not possible", "it is not a head for boxes",
            f"choose {' or '.join(name for name, spec in HEADS.items() if getattr(spec, 'task', None) == 'detect')}",
        )  # fmt: skip
    return head


def to_dict(spec: Any) -> dict[str, Any]:
    """The options as plain containers, in field order, the ``type`` first."""
    return dict(TypeAdapter(type(spec)).dump_python(spec, mode="json"))


def check_keys(where: str, values: Mapping[str, Any], known: Iterable[str], *, complete: bool = False) -> None:
    """Raise `ConfigError` at the first key that is not ``known`` (or, if ``complete``, that is missing)."""
    known = tuple(known)
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: no option {key!r}", "it is not one of its options", suggest(str(key), known))
    missing = [key for key in known if key not in values]
    if complete and missing:
        raise ConfigError(f"{where}: {', '.join(missing)} is missing", "every key is needed", "add it")


def invalid_value(prefix: str, error: ValidationError) -> ConfigError:
    """The first fault that pydantic found, with ``prefix`` before the key."""
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"])
    return ConfigError(f"{prefix}{key} = {first['input']!r} is not valid", first["msg"], "correct the value")


def _names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _validated(part: str, cls: type, values: Mapping[str, Any]) -> Any:
    known = _names(cls)
    if values.get("implicit") and "implicit" not in known:
        raise ConfigError(
            f"model.{part}.implicit is not possible here", f"this {part} has no place where it could be folded away",
            "leave it out; necks with merges can have it, and the heads "
            + ", ".join(name for name, head in HEADS.items() if "implicit" in _names(head)),
        )  # fmt: skip
    check_keys(part, values, known)
    if cls is MultiHeadSpec and "boxes" in values:
        values = {**values, "boxes": to_dict(_for_boxes(from_dict("head", values["boxes"])))}
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise invalid_value(f"{part}.", error) from None
