"""Where implicit knowledge stands in a part, and which operators can be folded away there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BeforeValidator, ConfigDict, model_serializer
from pydantic.dataclasses import dataclass

from cloverleaf.errors import ConfigError
from cloverleaf.layers.implicit.options import OPERATORS, ImplicitOptions, Operator, read_options


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What may stand somewhere so that deploying folds it away.

    Attributes:
        operators: those that fold.
        keeps_width: what goes on must be as wide as what comes.
        why: others do not fold, or have no meaning.
    """

    operators: tuple[Operator, ...]
    keeps_width: bool
    why: str


BEFORE = Place(OPERATORS, False, "")
AFTER = Place(
    ("add", "multiply", "gate", "inner"), True,
    "what stands behind a convolution is folded into it, and that cannot make it wider or narrower",
)  # fmt: skip
FACTOR = Place(("multiply",), True, "it is a factor on the logits of width and height")
ADDEND = Place(("add",), True, "it is an addend on the logits of x and y")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Placements:
    """Implicit knowledge of a part by placement; which of them a part has is its own affair.

    Attributes:
        align: aligns the kernel spaces of several maps (arXiv 2105.04206, sections 4.2 and 5.2).
        refine: refines predictions, behind the layer that makes them (section 5.2).
        anchor: a factor on the logits of width and height alone, which refines anchors (section 4.2).
        offset: an addend on the logits of x and y alone, which predicts offsets of centres (section 4.2).
        task: the canonical representation of a task, at the start of its branch (section 5.3).
    """

    align: ImplicitOptions | None = None
    refine: ImplicitOptions | None = None
    anchor: ImplicitOptions | None = None
    offset: ImplicitOptions | None = None
    task: ImplicitOptions | None = None

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        """What there is, by placement."""
        return dict(self.present())

    def present(self) -> Mapping[str, ImplicitOptions]:
        """The options of every placement that there is."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: options for name, options in values.items() if options is not None}


NONE = Placements()
# YOLOR's released detectors: an addend before the last convolution of each level, a factor behind it.
RELEASED = Placements(align=ImplicitOptions(operator="add"), refine=ImplicitOptions(operator="multiply"))


def placed(part: str, **places: Place) -> BeforeValidator:
    """A validator that reads the option `implicit` of a part: a mapping of placement -> operator or options.

    None, false, and a mapping of nothing else mean none.

    Args:
        part: `head` or `neck`, for messages.
        **places: placements of the part and what may stand there.

    Raises:
        ConfigError: while validating: an unknown placement, operator or option; lists the valid ones. Or an operator
            that cannot be folded at its place; says why.
    """
    return BeforeValidator(lambda value: read_placements(part, places, value))


def placed_or_released(part: str, **places: Place) -> BeforeValidator:
    """As `placed`, of an option that is true for `RELEASED` and false for none."""

    def read(value: Any) -> Any:
        if isinstance(value, bool):
            return value
        placements = read_placements(part, places, value)
        return placements if placements not in (None, RELEASED) else placements == RELEASED

    return BeforeValidator(read)


def read_placements(part: str, places: Mapping[str, Place], value: Any) -> Placements | None:
    """As `placed`."""
    key = f"model.{part}.implicit"
    if isinstance(value, Placements):
        value = value.present()
    if value is None or value is False:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{key} = {value!r} is not valid", "implicit knowledge is given by placement",
            f'write e.g. {key}.{next(iter(places))}={next(iter(places.values())).operators[0]}; '
            f"valid placements: {', '.join(places)}",
        )  # fmt: skip
    for name in value:
        if name not in places:
            raise ConfigError(
                f"{key}: no placement {name!r}", f"this {part} has no such place", f"valid: {', '.join(places)}"
            )
    given = {name: options for name, options in value.items() if options not in (None, False, "none")}
    read = {name: _checked(f"{key}.{name}", places[name], options) for name, options in given.items()}
    return Placements(**read) if read else None


def _checked(where: str, place: Place, value: Any) -> ImplicitOptions:
    options = read_options(where, value)
    if options.operator not in place.operators:
        raise ConfigError(
            f"{where} = {options.operator!r} cannot be folded away there", place.why,
            f"valid operators: {', '.join(place.operators)}",
        )  # fmt: skip
    if place.keeps_width and options.rows is not None:
        raise ConfigError(
            f"{where}.rows = {options.rows} cannot be folded away there", place.why,
            "leave the rows out; before a 1x1 convolution they can be chosen",
        )  # fmt: skip
    return options
