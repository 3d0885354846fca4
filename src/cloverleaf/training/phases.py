"""The phases of a run: what holds from which epoch to which, checked before training starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from cloverleaf.data.config import AugmentConfig
from cloverleaf.errors import ConfigError
from cloverleaf.losses.config import LossConfig, changed_options
from cloverleaf.structures import ByEpoch
from cloverleaf.training.config import ScheduleConfig, TrainConfig
from cloverleaf.training.config_io import build, merge, to_dict
from cloverleaf.training.phase_config import PhaseConfig

_CHANGEABLE = ("kind", "final_factor", "update", "span")  # of the schedule; the rest is decided at the start
_OF_MOSAICS = ("mosaic9", "mixup", "copy_paste")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run, with everything that holds in it.

    Attributes:
        name: as configured; empty for a run without phases.
        first: its first epoch, counted from 0.
        until: the first epoch after it.
        augment, loss, schedule: complete sections.
    """

    name: str
    first: int
    until: int
    augment: AugmentConfig
    loss: LossConfig
    schedule: ScheduleConfig

    @property
    def epochs(self) -> str:
        """``epochs 301 to 425``, counted from 1."""
        return f"epoch {self.until}" if self.until - self.first == 1 else f"epochs {self.first + 1} to {self.until}"

    def differences(self, config: TrainConfig) -> dict[str, Any]:
        """What differs from the run: ``{"augment.mixup": 0.2, ...}``."""
        sections = ("augment", "loss", "schedule")
        return {
            name: value
            for section in sections
            for name, value in changed_options(getattr(self, section), getattr(config, section), section)
        }

    def line(self, config: TrainConfig) -> str:
        """What begins with this phase, for people."""
        changed = ", ".join(f"{key}={value}" for key, value in self.differences(config).items())
        return f"phase {self.name}, {self.epochs}: {changed or 'as the run'}"

    def of(self, config: TrainConfig) -> TrainConfig:
        """``config`` as if the whole run were like this phase."""
        return replace(config, augment=self.augment, loss=self.loss, schedule=self.schedule, phases={})


def resolve_phases(config: TrainConfig) -> ByEpoch[Phase]:
    """What holds in every epoch of a run; one phase without a name where it is all of a piece.

    Raises:
        ConfigError: a name that cannot be set, ends out of order or not at the end of the run, a wrong value, or
            something without effect: a value, or a whole phase.
    """
    if not config.phases:
        if config.schedule.span == "phase":
            raise ConfigError(
                "schedule.span = phase has no effect", "this run has no phases", "leave it out, or give phases"
            )
        return ByEpoch.always(_whole(config), config.epochs)
    _check_ends(config)
    found: list[Phase] = []
    for name, phase in config.phases.items():
        _check_overrides(name, phase)
        first = found[-1].until if found else 0
        sections = {section: _section(config, name, phase, section) for section in ("augment", "loss", "schedule")}
        found.append(Phase(name, first, phase.until, **sections))
        _check_effect(found, phase, config.epochs)
    last = found[-1]
    if config.patience >= config.epochs - last.first > 0 and len(found) > 1:
        _no_effect(
            f"patience = {config.patience}", f"it counts in the last phase only, {last.name}, {last.epochs}",
            "set it below their number, or leave it out",
        )  # fmt: skip
    return ByEpoch(tuple(phase.until for phase in found), tuple(found))


def to_check(config: TrainConfig) -> tuple[Phase, ...]:
    """The run as if it had no phases, then its phases: so what is wrong with the run is not said of its first phase."""
    return (_whole(config), *resolve_phases(config).values) if config.phases else (_whole(config),)


@contextmanager
def blamed(phase: Phase) -> Iterator[None]:
    """Says of a wrong option in which phase it stands; nothing where there are no phases."""
    try:
        yield
    except ConfigError as error:
        if not phase.name:
            raise
        raise ConfigError(f"phase {phase.name}: {error.what}", error.why, error.fix) from None


def _whole(config: TrainConfig) -> Phase:
    return Phase("", 0, config.epochs, config.augment, config.loss, config.schedule)


def _section(config: TrainConfig, name: str, phase: PhaseConfig, section: str) -> Any:
    usual, changes = getattr(config, section), getattr(phase, section)
    return build(type(usual), merge(to_dict(usual), changes), where=f"phases.{name}.{section}") if changes else usual


def _check_ends(config: TrainConfig) -> None:
    before, earlier = 0, ""
    for name, phase in config.phases.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"phases.{name}: not a name", "options are set by it", "use small letters, digits and underscores"
            )
        if not phase.until:
            raise ConfigError(f"phases.{name} has no end", "until is missing", "say how many epochs are done by then")
        if phase.until <= before:
            raise ConfigError(
                f"phases.{name}.until = {phase.until} is out of order",
                f"phases.{earlier} before it ends with epoch {before}",
                "list the phases in their order, each with a later end",
            )
        before, earlier = phase.until, name
    if before != config.epochs:
        raise ConfigError(
            f"phases.{earlier}.until = {before}, and the run has {config.epochs} epochs",
            "the last phase ends with the run",
            f"set phases.{earlier}.until={config.epochs}, or epochs={before} in the same file",
        )


def _check_overrides(name: str, phase: PhaseConfig) -> None:
    """Refuse what belongs to a run as a whole."""
    for key in phase.schedule:
        if key not in _CHANGEABLE:
            _no_effect(
                f"phases.{name}.schedule.{key}", "it is decided once for the whole run",
                f"set schedule.{key}; a phase may change {', '.join(_CHANGEABLE)}",
            )  # fmt: skip
    if "close_mosaic" in phase.augment:
        _no_effect(
            f"phases.{name}.augment.close_mosaic", "it counts from the end of the run",
            f"set augment.close_mosaic, or phases.{name}.augment.mosaic=0",
        )  # fmt: skip


def _check_effect(found: list[Phase], config: PhaseConfig, epochs: int) -> None:
    """Refuse values of the last phase found that change nothing, and a phase that is as the one before."""
    phase = found[-1]
    closed = epochs - phase.augment.close_mosaic
    for key in ("mosaic", *_OF_MOSAICS):
        if phase.first >= closed and config.augment.get(key):
            _no_effect(
                f"phases.{phase.name}.augment.{key}",
                f"augment.close_mosaic = {phase.augment.close_mosaic} ends mosaics after epoch {max(closed, 0)}",
                f"set augment.close_mosaic=0, or phases.{phase.name}.augment.{key}=0",
            )
        if key != "mosaic" and not phase.augment.mosaic and config.augment.get(key):
            _no_effect(
                f"phases.{phase.name}.augment.{key}", "mosaics are off in this phase",
                "leave it out, or set it to 0",
            )  # fmt: skip
    if phase.until == epochs and config.schedule.get("span") == "phase":
        _no_effect(
            f"phases.{phase.name}.schedule.span = phase", "the last phase ends with the run", "leave it out",
        )  # fmt: skip
    if len(found) == 1:
        return
    before = found[-2]
    same = all(getattr(phase, field) == getattr(before, field) for field in ("augment", "loss", "schedule"))
    if same and phase.schedule.span == "run":
        _no_effect(
            f"phases.{phase.name}", f"everything is as in {before.name} before it",
            f"give it values of its own, or leave it out with phases.{phase.name}=null",
        )  # fmt: skip


def _no_effect(what: str, why: str, fix: str) -> NoReturn:
    raise ConfigError(f"{what} has no effect", why, fix)
