"""Operator and modelling of one piece of implicit knowledge, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, model_serializer
from pydantic.dataclasses import dataclass

from cloverleaf.errors import ConfigError

Operator = Literal["add", "multiply", "concatenate", "gate", "inner"]
Modelling = Literal["vector", "network", "factorisation"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
MODELLINGS: tuple[Modelling, ...] = get_args(Modelling)

Count = Annotated[int, Field(ge=1, le=16384)]
_DEFAULT_SIZE = 16  # of priors and bases; the paper gives none
# Options that belong to one operator or modelling only.
_OWNERS: Mapping[str, tuple[str, str]] = {
    "length": ("operator", "concatenate"),
    "rows": ("operator", "inner"),
    "prior": ("modelling", "network"),
    "activation": ("modelling", "network"),
    "atoms": ("modelling", "factorisation"),
    "sparsity": ("modelling", "factorisation"),
    "non_negative": ("modelling", "factorisation"),
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImplicitOptions:
    """How g is made and what it does to a map x with C channels (arXiv 2105.04206, equations 6 to 10).

    Attributes:
        operator: `add`: x + g; `multiply`: x g; `gate`: x sigmoid(g); `concatenate`: g before the channels of x;
            `inner`: the inner products of x with the rows of a matrix (manifold-space reduction).
        modelling: `vector`: g itself is learned; `network`: act(W z + b) of a learned prior z; `factorisation`:
            Z^T c + b of learned atoms Z and coefficients c.
        length: channels that are concatenated; C where None.
        rows: K of the inner product, the width behind it; C where None.
        prior: length of z; 16 where None.
        activation: after the network; `identity` where None.
        atoms: number of atoms; 16 where None.
        sparsity: above 0 the coefficients are drawn towards zero by so much, sign(c) max(|c| - sparsity, 0), without b.
        non_negative: atoms and coefficients count where they are positive: max(Z, 0)^T max(c, 0), without b.

    Raises:
        ConfigError: an option of another operator or modelling, or `inner` of a network with activation.
    """

    operator: Operator = "add"
    modelling: Modelling = "vector"
    length: Count | None = None
    rows: Count | None = None
    prior: Count | None = None
    activation: Literal["identity", "silu"] | None = None
    atoms: Count | None = None
    sparsity: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    non_negative: bool = False

    def __post_init__(self) -> None:
        for name, (kind, owner) in _OWNERS.items():
            if getattr(self, name) and getattr(self, kind) != owner:
                raise ConfigError(
                    f"implicit knowledge: {name} = {getattr(self, name)!r} has no effect",
                    f"it is an option of {kind} {owner!r}, and the {kind} is {getattr(self, kind)!r}",
                    f"leave it out, or set {kind} to {owner!r}",
                )
        if self.operator == "inner" and self.activation not in (None, "identity"):
            raise ConfigError(
                f"implicit knowledge: activation = {self.activation!r} does not go with operator 'inner'",
                "the matrix starts as a projection, which has negative entries", "leave the activation out",
            )  # fmt: skip

    @property
    def prior_size(self) -> int:
        """Length of the prior z."""
        return self.prior or _DEFAULT_SIZE

    @property
    def num_atoms(self) -> int:
        """Rows of the basis Z."""
        return self.atoms or _DEFAULT_SIZE

    @property
    def has_bias(self) -> bool:
        """Whether a factorisation has the term b, a number: without constraints, as published."""
        return not (self.sparsity or self.non_negative)

    @model_serializer
    def _plain(self) -> str | dict[str, Any]:
        """The name of the operator where nothing else is chosen, otherwise what is."""
        chosen = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name == "operator" or getattr(self, field.name) != field.default
        }
        return self.operator if len(chosen) == 1 else chosen


def read_options(where: str, value: Any) -> ImplicitOptions:
    """Options from the name of an operator or a mapping.

    Args:
        where: key of the value, for messages.
        value: such as ``"add"`` or ``{"operator": "add", "modelling": "network"}``; a ``type`` is an operator too.

    Raises:
        ConfigError: an unknown operator, modelling or option, or a value of the wrong type or range; lists the valid.
    """
    if isinstance(value, ImplicitOptions):
        return value
    if isinstance(value, str):
        value = {"operator": value}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} = {value!r} is not valid", "implicit knowledge is given by its operator, or by its options",
            f"valid operators: {', '.join(OPERATORS)}",
        )  # fmt: skip
    values = dict(value)
    if "type" in values:  # what a name becomes when options are set beside it
        values.setdefault("operator", values.pop("type"))
    known = [field.name for field in dataclasses.fields(ImplicitOptions)]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}: no option {key!r}", "it is not one of its options", f"valid: {', '.join(known)}"
            )
    for key, valid in (("operator", OPERATORS), ("modelling", MODELLINGS)):
        if values.get(key, valid[0]) not in valid:
            raise ConfigError(
                f"{where}: no {key} {values[key]!r}", f"it is not one of the known {key}s", f"valid: {', '.join(valid)}"
            )
    try:
        return ImplicitOptions(**values)
    except ConfigError as error:
        raise ConfigError(error.what.replace("implicit knowledge", where, 1), error.why, error.fix) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise ConfigError(f"{where}.{key} = {first['input']!r} is not valid", first["msg"], "correct it") from None
