"""Reading, changing and writing the configuration of a run: dotted keys, YAML files, errors that name the key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from cloverleaf import atomic
from cloverleaf.errors import ConfigError, suggest
from cloverleaf.models.parts import invalid_value
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.phase_config import PhaseConfig, scaled_to

Config = TypeVar("Config")  # `TrainConfig`, or the configuration of another kind of run


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain containers, in field order."""
    return cast(dict[str, Any], TypeAdapter(type(config)).dump_python(config, mode="json"))


def from_dict(values: Mapping[str, Any], *, where: str = "configuration") -> TrainConfig:
    """Build a configuration from nested plain values.

    Raises:
        ConfigError: an unknown key (with the nearest valid one) or a value of the wrong type or range.
    """
    return build(TrainConfig, values, where=where)


def build(kind: type[Config], values: Mapping[str, Any], *, where: str = "configuration") -> Config:
    """As `from_dict`, for any kind of configuration."""
    _check_keys(values, _known_keys(kind, values), where, prefix="")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise invalid_value(f"{where}: ", error) from None


def _known_keys(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every key that ``values`` may have, with its default; phases under the names that they are given."""
    known = to_dict(kind())
    phases = values.get("phases")
    if kind is TrainConfig and isinstance(phases, Mapping):
        sections = {name: known.get(name, default) for name, default in to_dict(PhaseConfig()).items()}
        known["phases"] = {name: sections if phase is not None else {} for name, phase in phases.items()}
    return known


def _check_keys(values: Mapping[str, Any], known: Mapping[str, Any], where: str, prefix: str) -> None:
    for key, value in values.items():
        if key not in known:
            valid = [f"{prefix}{name}" for name in known] if prefix else [*known, *flatten(known)]
            raise ConfigError(
                f"{where}: no option {prefix}{key}", "it is not in the configuration", suggest(f"{prefix}{key}", valid)
            )
        below = known[key]
        if isinstance(below, dict) and below:
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{where}: {prefix}{key} is a section",
                    f"got {value!r}",
                    f"set one of its values, e.g. {prefix}{key}.{next(iter(below))}",
                )
            _check_keys(value, below, where, f"{prefix}{key}.")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; empty sections stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` -> ``{"a": {"b": 1}}``; later keys win."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = _join(nested, value)
    return nested


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, section by section; neither is modified.

    Options of a part that was given by its name (`model.backbone=revcol-nano`) stand beside that name, its `type`;
    another `type` leaves nothing of the part that was there.
    """
    return _join(base, changes, layers=True)


def _join(base: Mapping[str, Any], changes: Mapping[str, Any], *, layers: bool = False) -> dict[str, Any]:
    """`merge`, or without ``layers`` what stands side by side: there an option may come before the `type`."""
    merged = dict(base)
    for key, value in changes.items():
        before = {"type": merged[key]} if isinstance(merged.get(key), str) else merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            exchanged = layers and "type" in value and value["type"] != before.get("type")
            merged[key] = dict(value) if exchanged else _join(before, value, layers=layers)
        else:
            merged[key] = value
    return merged


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["optimizer.lr=0.02"]`` -> nested values; the right side is read as YAML.

    Raises:
        ConfigError: no `=`, an empty key, or a value that is not YAML.
    """
    nested: dict[str, Any] = {}
    for text in assignments:
        key, equals, raw = text.partition("=")
        parts = [part.replace("-", "_") for part in key.strip().split(".")]
        if not equals or not all(parts):
            raise ConfigError(f"--set {text!r} is not KEY=VALUE", "", "write e.g. --set optimizer.lr=0.02")
        try:
            value = _number(yaml.safe_load(raw))
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {text!r}: the value is not readable", str(error).splitlines()[0], "quote the value"
            ) from None
        nested = _join(nested, nest({".".join(parts): value}))
    return nested


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text; the user meant a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def update(config: Config, changes: Mapping[str, Any], *, where: str = "configuration") -> Config:
    """A new configuration with nested ``changes``; another number of epochs scales the phases of the run.

    Raises:
        ConfigError: as `from_dict`, or fewer epochs than phases.
    """
    epochs = changes.get("epochs")
    if isinstance(config, TrainConfig) and config.phases and isinstance(epochs, int) and epochs > 0:
        phases = changes.get("phases", {})
        if phases is not None:
            changes = {**changes, "phases": merge(scaled_to(config.phases, epochs), phases)}
    return build(type(config), merge(to_dict(config), changes), where=where)


def read_config(path: Path | str) -> TrainConfig:
    """Read a `config.yaml` written by a run (or by hand; missing keys take their defaults).

    Raises:
        ConfigError: the file is missing, is not YAML or holds a wrong key or value.
    """
    return read(TrainConfig, path)


def read(kind: type[Config], path: Path | str) -> Config:
    """As `read_config`, for any kind of configuration."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no configuration file {path}", "the file does not exist", "give the config.yaml of a run")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(
            f"{where}: not valid YAML", why, "correct the line, or give the config.yaml of a run"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no configuration",
            f"its top level is {type(values).__name__}",
            "give the config.yaml of a run",
        )
    return build(kind, values, where=str(path))


def write_config(config: Any, path: Path) -> None:
    """Write ``config`` so that `read_config` gives it back; atomic."""
    atomic.write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def config_hash(config: Any) -> str:
    """Twelve hex digits over everything that decides what is learned (not where it runs or is written)."""
    values = to_dict(dataclasses.replace(config, output=""))
    del values["runtime"]
    values["data"].pop("workers")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
