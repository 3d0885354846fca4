"""Values in a study file: dotted or nested, tried with the line to blame, or references to what is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cloverleaf.ablation.study import Lines, Study
from cloverleaf.errors import CloverleafError, ConfigError, suggest
from cloverleaf.training.config_io import flatten, nest

T = TypeVar("T")
Values = Mapping[str, Any]
Section = tuple[str, ...]
_REFERENCE = ".prepared"
# Which preparations give what a key takes.
_USES: Mapping[str, tuple[str, ...]] = {
    "model.backbone_weights": ("pretrain", "train", "file"),
    "model.weights": ("train", "file"),
    "distillation.teacher": ("train", "file"),
}


def plain(values: Values) -> dict[str, Any]:
    """Dotted and nested keys in any mixture, as one flat mapping."""
    return flatten({str(key): _keys_as_text(value) for key, value in values.items()})


def _keys_as_text(value: Any) -> Any:
    return {str(k): _keys_as_text(v) for k, v in value.items()} if isinstance(value, dict) else value


def take_references(values: dict[str, Any], study: Study, section: Section, lines: Lines) -> dict[str, str]:
    """Remove the references (`KEY: {prepared: NAME}`) from flat ``values``.

    Returns:
        Names of steps by key.

    Raises:
        ConfigError: a key that takes none, a step that is not there, or one that makes something else.
    """
    found = {}
    for key in [key for key in values if key.endswith(_REFERENCE)]:
        name, target = values.pop(key), key.removesuffix(_REFERENCE)
        where = f"{lines.of_value(section, key)}: {'.'.join(section)}"
        if target not in _USES:
            raise ConfigError(
                f"{where}: {target} takes nothing prepared", f"{', '.join(_USES)} do", "correct the key"
            )  # fmt: skip
        if name not in study.prepare:
            raise ConfigError(
                f"{where}: {target}: nothing is prepared as {name!r}", "the study has no such step under prepare",
                suggest(str(name), study.prepare),
            )  # fmt: skip
        if study.prepare[name].run not in _USES[target]:
            raise ConfigError(
                f"{where}: {target} cannot take {name!r}", "pre-training gives the weights of a backbone only",
                "use it for model.backbone_weights",
            )  # fmt: skip
        found[target] = str(name)
    return found


def refuse(values: Values, keys: Mapping[str, str], section: Section, lines: Lines) -> None:
    """Raise `ConfigError` for a key that does not belong into the section, with what to do instead."""
    for key in values:
        if key in keys:
            raise ConfigError(
                f"{lines.of_value(section, key)}: {'.'.join(section)}: {key} cannot be set here",
                "it belongs to the study", keys[key],
            )  # fmt: skip


def attempt(values: Values, apply: Callable[[dict[str, Any]], T], section: Section, lines: Lines) -> T:
    """Apply all values; if that fails, try each by itself, so that the message names the line of the one to blame."""
    try:
        return apply(nest(values))
    except CloverleafError as error:
        for key, value in values.items():
            try:
                apply(nest({key: value}))
            except CloverleafError as own:
                raise at(lines.of_value(section, key), own) from None
        raise at(lines.of(*section), error) from None


def at(where: str, error: CloverleafError) -> CloverleafError:
    """The same error with a place before it."""
    return type(error)(f"{where}: {error.what}", error.why, error.fix)
