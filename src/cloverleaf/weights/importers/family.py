"""What a family of published weights must say so that the importer can read and write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.weights.strict import Shape


class Layout(Protocol):
    """Where the tensors of one detector stand among the published names."""

    def to_published(self, model: Detector) -> dict[str, Tensor]:
        """The published names and tensors of ``model``, in the published order."""

    def to_ours(self, what: str, model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of ``model`` from a complete published ``state``.

        Raises:
            CheckpointError: the values contradict each other; it begins with ``what``.
        """


@dataclass(frozen=True, slots=True)
class Reading:
    """A published state dict, understood as far as its names and shapes say it.

    Attributes:
        spec: of the detector that it makes, in the form of the state dict.
        state: without what is no longer in force.
        layout: of that detector among the names of ``state``.
    """

    spec: DetectorSpec
    state: Mapping[str, Tensor]
    layout: Layout


class Family(Protocol):
    """The functions of a module in `cloverleaf.weights.importers`; the module itself is the object."""

    NAMES: tuple[str, ...]
    """Catalog names of its variants."""

    ORIGIN: str
    """Where its weights come from and under which licence, as a clause."""

    def covers(self, spec: DetectorSpec) -> bool:
        """Whether ``spec`` is made of the kinds of parts that this family has names for."""

    def describe(self, what: str, shapes: Mapping[str, Shape]) -> DetectorSpec | None:
        """What names and shapes are of, where a family can tell without comparing them with its variants; else None.

        The head may have other classes or another form.

        Raises:
            CheckpointError: they contradict each other; it begins with ``what``.
        """

    def is_like(self, keys: Iterable[str]) -> bool:
        """Whether names look like those of this family."""

    def recognise_form(self, keys: Iterable[str]) -> Form:
        """Which published form the names belong to."""

    def read(self, what: str, spec: DetectorSpec, state: Mapping[str, Tensor], num_classes: int | None) -> Reading:
        """What ``state`` holds if it is of the variant ``spec``; whether that is complete is not its question.

        Raises:
            CheckpointError: the head cannot be of that variant, or has not ``num_classes``; it begins with ``what``.
        """

    def layout(self, spec: DetectorSpec) -> Layout:
        """Where the tensors of a detector stand.

        Raises:
            CheckpointError: published names cannot express it.
        """

    def likely(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Variants that a state dict of these names and shapes can be at all, judged by one entry; perhaps none."""

    def comparable(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Without what depends on the number of classes or may be absent, by names that all forms share."""


def same_kinds(one: DetectorSpec, other: DetectorSpec) -> bool:
    """Whether both are made of the same kinds of parts, whatever their options."""
    return all(type(getattr(one, part)) is type(getattr(other, part)) for part in ("backbone", "neck", "head"))


def same_but(one: Any, other: Any, options: Iterable[str]) -> bool:
    """Whether the options of two parts of one kind are the same, those named aside."""
    return bool(replace(other, **{key: getattr(one, key) for key in options}) == one)


def check_num_classes(what: str, found: int, wanted: int | None) -> int:
    """``found``; raises `CheckpointError` where another number is ``wanted``."""
    if wanted is not None and found != wanted:
        raise CheckpointError(
            what,
            f"its head has {found} classes, not {wanted}",
            f"leave num_classes out; cloverleaf import --num-classes {wanted} (in Python import_checkpoint or "
            "with_num_classes) starts the head anew and keeps the rest",
        )
    return found
