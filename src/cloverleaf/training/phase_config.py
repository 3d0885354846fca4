"""Phases of a run as configuration: when each ends and which values it changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PhaseConfig:
    """A stretch of a run in which some values differ from those of the run.

    Model, average, optimiser and its state go on through all phases; what a phase says of augmentation, loss and
    schedule holds from its first epoch to its last.

    Attributes:
        until: how many epochs of the run are done when it ends; the last phase ends with the run.
        augment: values of the section of that name that differ from those of the run.
        loss: likewise; level weights that `loss.autobalance` adapts start anew with another loss.
        schedule: likewise, of `kind`, `final_factor`, `update` and `span`; the rest belongs to the run as a whole.
    """

    until: Annotated[int, Field(ge=0)] = 0
    augment: dict[str, Any] = Field(default_factory=dict)
    loss: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] = Field(default_factory=dict)


def _named_only(values: Any) -> Any:
    """Nothing for no phases; a phase that is nothing is left out."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        return values
    return {name: phase for name, phase in values.items() if phase is not None}


Phases = Annotated[dict[str, PhaseConfig], BeforeValidator(_named_only)]


def scaled_to(phases: Mapping[str, PhaseConfig], epochs: int) -> dict[str, dict[str, Any]]:
    """When the phases of a run end if it has so many epochs: in proportion, each at least one epoch long.

    Returns:
        ``{name: {"until": ...}}``, to be laid over a configuration; nothing where an end is missing or out of order,
        which scaling would hide.

    Raises:
        ConfigError: fewer epochs than phases.
    """
    ends = [phase.until for phase in phases.values()]
    if epochs < len(ends):
        raise ConfigError(
            f"epochs = {epochs} for {len(ends)} phases",
            f"each of {', '.join(phases)} takes at least one",
            f"train for {len(ends)} epochs or more, or set phases=null",
        )
    if any(end <= before for before, end in pairwise((0, *ends))):
        return {}
    scaled: dict[str, dict[str, Any]] = {}
    before = 0
    for place, (name, end) in enumerate(zip(phases, ends, strict=True)):
        wanted = int(end * epochs / ends[-1] + 0.5)
        before = min(max(wanted, before + 1), epochs - (len(ends) - 1 - place))
        scaled[name] = {"until": before}
    return scaled
