"""The study file: a small, strict YAML that names variations, seeds and what they share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cloverleaf.errors import ConfigError, suggest

Seed = Annotated[int, Field(ge=0, strict=True)]
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9+])?")
_EXAMPLE = "see docs/ablate.md for a whole one"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Preparation:
    """What variations need before they can run, as the file describes it.

    Attributes:
        run: `train` a model like those of the study, `pretrain` a backbone on the training images, or `file`: it is
            given on the command line.
        per_seed: made once with every seed, instead of once for all.
        recipe: of `train` or `pretrain`; the study's, or one for so many images, when None.
        epochs: short for `epochs` in `set`.
        set: values for this step, over those that variations share (`train`) or over those that follow from the
            baseline: backbone, image size, images (`pretrain`).
    """

    run: Literal["train", "pretrain", "file"]
    per_seed: Annotated[bool, Field(strict=True)] = False
    recipe: str | None = None
    epochs: Annotated[int, Field(ge=1, strict=True)] | None = None
    set: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Study:
    """What is compared with what.

    Attributes:
        name: of the study, and of its folder under `runs/ablate`.
        title: heading of the table; the name when empty.
        question: what the study is to answer, printed below the title.
        data: a `data.yaml`, a COCO JSON or a folder; `--data` overrides it.
        recipe: a packaged recipe; None chooses one by the size of the training split, the same for all variations.
        model: catalog name or composition; short for `model.name` in `set`.
        epochs: short for `epochs` in `set`.
        split: the split whose numbers stand in the table.
        metric: the column that comes first, and that picture and curves show; the first of the task when None.
        seeds: every variation is trained once with each.
        baseline: the variation that the others are compared with.
        set: values that all variations share, by dotted key or nested.
        prepare: steps by name; variations refer to their weights by `{prepared: NAME}`.
        variations: what each variation changes, likewise; `recipe` changes the recipe.
    """

    name: str
    title: str = ""
    question: str = ""
    data: str | None = None
    recipe: str | None = None
    model: str | None = None
    epochs: Annotated[int, Field(ge=1, strict=True)] | None = None
    split: str = "val"
    metric: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    baseline: str
    set: dict[str, Any] = Field(default_factory=dict)
    prepare: dict[str, Preparation] = Field(default_factory=dict)
    variations: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


KEYS = tuple(Study.__dataclass_fields__)
KeyPath = tuple[str, ...]


class Lines:
    """Where the keys of a YAML file stand, for messages.

    Args:
        path: the file.
        marks: line of every key, by its path from the top.
    """

    def __init__(self, path: Path, marks: Mapping[KeyPath, int]) -> None:
        self.path, self.marks = path, marks

    def of(self, *keys: str) -> str:
        """``FILE:LINE`` of a key, or of the nearest one above it that stands in the file."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.marks:
                return f"{self.path}:{self.marks[keys[:end]]}"
        return str(self.path)

    def of_value(self, section: KeyPath, dotted: str) -> str:
        """``FILE:LINE`` of a configuration key below ``section``, however it is split into sections and dots."""
        depth = len(section)
        written = {".".join(keys[depth:]): mark for keys, mark in self.marks.items() if keys[:depth] == section}
        covering = [key for key in written if key and f"{dotted}.".startswith(f"{key}.")]
        return f"{self.path}:{written[max(covering, key=len)]}" if covering else self.of(*section)


def read_study(path: Path) -> tuple[Study, Lines]:
    """Read a study file; strict.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, missing or there twice, or a value is wrong.
    """
    text = _read(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        marks = _marks(path, node)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{where}: not valid YAML", why, f"correct the line; {_EXAMPLE}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no study", f"its top level is {type(values).__name__}", _EXAMPLE)
    lines = Lines(path, marks)
    _check_keys(values, lines)
    return _check(_validated(values, lines), lines), lines


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no study file {path}", "the file does not exist", f"name a YAML file; {_EXAMPLE}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder", "a study is one YAML file", f"name the file; {_EXAMPLE}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file", str(error), f"name a YAML file; {_EXAMPLE}") from None


def _marks(path: Path, node: yaml.Node | None, above: KeyPath = ()) -> dict[KeyPath, int]:
    """Line of every key; refuses a key that is there twice, of which YAML would silently drop the first."""
    marks: dict[KeyPath, int] = {}
    if not isinstance(node, yaml.MappingNode):
        return marks
    for key, value in node.value:
        name, line = (*above, str(key.value)), key.start_mark.line + 1
        if name in marks:
            raise ConfigError(
                f"{path}:{line}: {'.'.join(name)} is there twice", f"it stands in line {marks[name]} too", "rename one"
            )
        marks[name] = line
        marks |= _marks(path, value, name)
    return marks


def _check_keys(values: Mapping[Any, Any], lines: Lines) -> None:
    for key in values:
        if key not in KEYS:
            raise ConfigError(
                f"{lines.of(str(key))}: no option {key!r} in a study", f"a study has {', '.join(KEYS)}",
                suggest(str(key), KEYS),
            )  # fmt: skip
    for key in ("name", "baseline", "variations"):
        if values.get(key) in (None, "", {}):
            raise ConfigError(f"{lines.of(key)}: {key} is missing", "every study needs it", f"add it; {_EXAMPLE}")


def _validated(values: Mapping[str, Any], lines: Lines) -> Study:
    """Typed values; an empty variation (`plain:`) changes nothing."""
    given = {key: value for key, value in values.items() if value is not None}
    if isinstance(variations := given["variations"], dict):
        for name in variations:
            if not isinstance(name, str):
                raise ConfigError(
                    f"{lines.of('variations')}: YAML reads the variation {name!r} as {type(name).__name__}",
                    "a variation has a name", "put it in quotes",
                )  # fmt: skip
        given["variations"] = {name: {} if value is None else value for name, value in variations.items()}
    try:
        return TypeAdapter(Study).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(step) for step in first["loc"])
        raise ConfigError(
            f"{lines.of(*keys)}: {'.'.join(keys)} = {first['input']!r} is not valid", first["msg"], "correct the value"
        ) from None


def _check(study: Study, lines: Lines) -> Study:
    if study.baseline not in study.variations:
        raise ConfigError(
            f"{lines.of('baseline')}: no variation {study.baseline!r}",
            "the baseline is one of the variations", suggest(study.baseline, study.variations),
        )  # fmt: skip
    names = [("name", study.name)]
    names += [(key, name) for key in ("variations", "prepare") for name in getattr(study, key)]
    for key, name in names:
        if not _NAME.fullmatch(name):
            where = lines.of(key) if key == "name" else lines.of(key, name)
            raise ConfigError(
                f"{where}: the name {name!r} is not possible", "it names folders",
                "use letters, digits and . _ + - and begin with a letter or digit",
            )  # fmt: skip
    _check_preparations(study, lines)
    if len(set(study.seeds)) != len(study.seeds):
        raise ConfigError(
            f"{lines.of('seeds')}: a seed is there twice", f"seeds are {list(study.seeds)}", "leave one out"
        )
    return study


def _check_preparations(study: Study, lines: Lines) -> None:
    for name, step in study.prepare.items():
        given = [key for key in ("per_seed", "recipe", "epochs", "set") if getattr(step, key)]
        if step.run == "file" and given:
            raise ConfigError(
                f"{lines.of('prepare', name, given[0])}: {given[0]} of {name} has no effect",
                "it is a file that is given with --prepared", "leave it out, or choose another run",
            )  # fmt: skip
