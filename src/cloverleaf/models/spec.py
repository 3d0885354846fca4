"""What a detector is made of, as plain data that a weights file can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import nn

from cloverleaf.errors import ConfigError, suggest
from cloverleaf.models import parts
from cloverleaf.structures import FeatureSpec

Form = Literal["training", "deploy", "fused"]
Task = Literal["detect", "instance", "semantic", "classify", "multi"]


class BackboneSpec(Protocol):
    """Options of a backbone. `build` gives a module with ``.features``: a `FeatureSpec` of what it returns."""

    @property
    def type(self) -> str:
        """Its name in `parts.BACKBONES`."""

    def build(self) -> nn.Module:
        """The module: ``(B, 3, H, W)`` -> feature maps, finest first."""


class NeckSpec(Protocol):
    """Options of a neck. `build` gives a module with ``.features``: a `FeatureSpec` of what it returns."""

    @property
    def type(self) -> str:
        """Its name in `parts.NECKS`."""

    def build(self, features: FeatureSpec) -> nn.Module:
        """The module: feature maps as described by ``features`` -> feature maps, finest first."""

    def deployed(self) -> NeckSpec:
        """The options that describe the neck once its implicit knowledge is folded away."""


class HeadSpec(Protocol):
    """Options of a head. `build` gives a module with ``num_classes``, ``strides`` and ``deploy()``; see `Detector`."""

    @property
    def task(self) -> Task:
        """What it is for."""

    @property
    def type(self) -> str:
        """Its name in `parts.HEADS`."""

    def build(self, features: FeatureSpec, num_classes: int) -> nn.Module:
        """The module: feature maps as described by ``features`` -> raw output."""

    def deployed(self) -> HeadSpec:
        """The options that describe the head once what only training needs is folded or dropped."""


class SupervisionSpec(Protocol):
    """Options of what supervises a model beside its head, in training only; see `Detector.supervision`."""

    @property
    def type(self) -> str:
        """Its name in `parts.SUPERVISIONS`."""

    @property
    def reconstructs(self) -> bool:
        """Whether it reconstructs the input, of which padding is no part."""

    def build(self, backbone: nn.Module, strides: Sequence[int], head: HeadSpec, num_classes: int) -> nn.Module:
        """The module for a model with that backbone, head and number of classes.

        Args:
            backbone: of the model.
            strides: input pixels per cell of the maps that its head reads.
            head: options of its head.
            num_classes: K.

        Raises:
            ConfigError: it does not fit them.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """A backbone, a neck, a head and the number of classes.

    Attributes:
        name: catalog name that it came from.
        num_classes: K.
        backbone, neck, head: options of the parts.
        supervision: options of further supervision in training, or None.
        fused: normalisation is folded into the convolutions (inference only).
    """

    name: str
    backbone: BackboneSpec
    neck: NeckSpec
    head: HeadSpec
    num_classes: int = 80
    supervision: SupervisionSpec | None = None
    fused: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.num_classes, bool) or not isinstance(self.num_classes, int) or self.num_classes < 1:
            raise ConfigError(
                f"num_classes = {self.num_classes!r} is not valid",
                "a detector needs at least one class",
                "give a whole number of 1 or more",
            )
        training = self.supervision or self.head != self.head.deployed() or self.neck != self.neck.deployed()
        if self.fused and training:
            raise ConfigError(
                "a fused detector cannot have a head or neck in training form",
                f"the head is {self.head}, the neck {self.neck}, further supervision {self.supervision}",
                "fuse the trained model instead of building one",
            )

    @property
    def task(self) -> Task:
        """What the model is for; decided by its head."""
        return self.head.task

    @property
    def form(self) -> Form:
        """`training` (implicit knowledge, auxiliary branches), `deploy` (without them), `fused` (norms folded too)."""
        if self.fused:
            return "fused"
        return "deploy" if self == self.as_deployed() else "training"

    def as_deployed(self) -> DetectorSpec:
        """The spec of the same detector without what only training needs, norms not folded."""
        return replace(self, neck=self.neck.deployed(), head=self.head.deployed(), supervision=None)

    def as_fused(self) -> DetectorSpec:
        """The spec of the same detector after fusing."""
        return replace(self.as_deployed(), fused=True)

    def with_overrides(self, overrides: Mapping[str, Mapping[str, Any] | str]) -> DetectorSpec:
        """A copy with options of the parts changed, e.g. ``{"backbone": {"width": 0.5}}``, or with other parts.

        A name alone, or as the ``type`` among options, is that of another part, as in a composition:
        ``{"backbone": "revcol-nano"}`` or ``{"backbone": {"type": "revcol-nano", "memory": "plain"}}``; without
        supervision: ``{"supervision": "none"}``.

        Raises:
            UnknownModelError: no part of that name.
            ConfigError: an unknown kind of part or option, or a value of the wrong type or range.
        """
        for part, values in overrides.items():
            if part not in parts.ALL_TABLES:
                raise ConfigError(
                    f"{self.name}: no part {part!r}", "its options cannot be set", suggest(part, parts.ALL_TABLES)
                )
            if not isinstance(values, Mapping | str):
                raise ConfigError(
                    f"{self.name}: {part} = {values!r} is not valid",
                    "a part is given by its name, its options by a mapping",
                    f'write e.g. {part}={{"width": 0.5}}, or its name in quotes',
                )
        named = {part: {"type": values} if isinstance(values, str) else values for part, values in overrides.items()}
        return replace(self, **{part: self._overridden(part, values) for part, values in named.items()})

    def _overridden(self, part: str, values: Mapping[str, Any]) -> Any:
        present = getattr(self, part)
        if part not in parts.OPTIONAL_TABLES:
            return parts.changed(part, present, values)
        if not values:
            return present
        if present is None and "type" not in values:
            raise ConfigError(
                f"{part}.type is missing", f"{self.name} has no {part} whose options could be set",
                f"add the type: {' or '.join(parts.OPTIONAL_TABLES[part])}",
            )  # fmt: skip
        if values.get("type") == "none":
            parts.check_keys(part, values, ("type",))
            return None
        return parts.from_dict(part, values) if present is None else parts.changed(part, present, values)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for JSON; `from_dict` reads them back."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "fused": self.fused,
            **{part: parts.to_dict(spec) for part in parts.ALL_TABLES if (spec := getattr(self, part)) is not None},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectorSpec:
        """Read what `to_dict` wrote; strict.

        Raises:
            ConfigError: a key is unknown or missing, or a value of the wrong type or range.
        """
        needed = ("name", "num_classes", "fused", *parts.TABLES)
        parts.check_keys("model spec", values, (*needed, *parts.OPTIONAL_TABLES))
        parts.check_keys("model spec", {key: values[key] for key in values if key in needed}, needed, complete=True)
        built: dict[str, Any] = {
            part: parts.from_dict(part, values[part]) for part in parts.ALL_TABLES if part in values
        }
        return cls(name=str(values["name"]), num_classes=values["num_classes"], fused=bool(values["fused"]), **built)


@dataclass(frozen=True, slots=True)
class Variant:
    """A catalog entry.

    Attributes:
        spec: what it is made of, with as many classes as published.
        description: one line for lists.
        image_size: side of the input, in pixels, at which it was published.
    """

    spec: DetectorSpec
    description: str
    image_size: int = 640
