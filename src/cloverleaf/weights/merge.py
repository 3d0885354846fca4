"""Averaging the weights of several trained models into one: model-level re-parameterisation (arXiv 2207.02696, 2.2)."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.weights.average import WeightAverage
from cloverleaf.weights.format import load


def merge(files: Sequence[str | os.PathLike[str]], *, weights: Sequence[float] | None = None) -> Detector:
    """The weighted average of weights files of one model, such as those of training on different data.

    Every parameter and buffer is averaged alike (implicit knowledge and branches of re-parameterised convolutions
    too), in float64. That includes the BatchNorm statistics, which are then not those of the averaged network: they
    must be recomputed (`cloverleaf.training.recalibrate`) before the result is judged.

    Args:
        files: at least two; the same parts, options, classes and anchors. They are read one after another.
        weights: one positive number per file, in any scale; None weighs all alike.

    Returns:
        The detector in evaluation mode. Its metadata name the parents with their shares, which add up to 1; class
        names and image size are the parents'.

    Raises:
        ConfigError: fewer than two files, one given twice, or weights that do not fit.
        CheckpointError: a file cannot be read, is fused, holds values that are not finite, or differs from the first
            one; the message names the first difference.
    """
    paths = [Path(file) for file in files]
    _check_files(paths)
    shares = _shares(weights, paths)
    average = WeightAverage()
    parents: list[_Parent] = []
    for path, share in zip(paths, shares, strict=True):
        model = load(path)
        parents.append(_parent(path, share, model))
        _check_same(parents[0], parents[-1])
        try:
            average.add(model.state_dict(), share)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.what}", error.why, error.fix) from None
    model.load_state_dict(average.mean())
    model.metadata = _merged(parents)
    return model


@dataclass(frozen=True, slots=True)
class _Parent:
    """What is kept of a file once its weights are added up."""

    path: Path
    share: float
    spec: dict[str, Any]
    facts: WeightsMetadata


def _parent(path: Path, share: float, model: Detector) -> _Parent:
    if model.spec.fused:
        raise CheckpointError(
            f"{path} is fused and cannot be merged",
            "the average of folded weights is not the folded average, and no BatchNorm is left to recompute",
            "merge the files it was made from; the result is folded when it is used",
        )
    return _Parent(path, share, model.current_spec().to_dict(), model.metadata or WeightsMetadata())


def _check_files(paths: Sequence[Path]) -> None:
    if len(paths) < 2:
        raise ConfigError("nothing to merge", f"{len(paths)} weights file is given", "give at least two")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigError(f"{path} is given twice", "", "give it once, with a larger weight")
        seen.add(path.resolve())


def _shares(weights: Sequence[float] | None, paths: Sequence[Path]) -> list[float]:
    """The weights scaled to a sum of 1."""
    if weights is None:
        return [1 / len(paths)] * len(paths)
    shown = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != len(paths):
        raise ConfigError(
            f"weights {shown or '(none)'} do not fit {len(paths)} files", f"there are {len(weights)} of them",
            "give one weight for each file, in their order",
        )  # fmt: skip
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(
            f"weights {shown} cannot be used",
            "each must be positive and finite",
            "leave out a file that shall not count",
        )
    return [weight / math.fsum(weights) for weight in weights]


def _check_same(first: _Parent, other: _Parent) -> None:
    what = f"{other.path} cannot be merged with {first.path}"
    one, two = first.facts.normalisation, other.facts.normalisation
    if one != two:
        raise CheckpointError(
            f"{what}: another normalisation", f"{two!r} instead of {one!r}", "merge models of one kind"
        )
    names, others = first.facts.class_names, other.facts.class_names
    if names and others and names != others:
        raise CheckpointError(
            f"{what}: other classes", _different_classes(names, others),
            "merge models of the same classes in the same order: each output has learned its own",
        )  # fmt: skip
    difference = _first_difference({**first.spec, "name": ""}, {**other.spec, "name": ""})
    if difference is None:
        return
    key, one, two = difference
    if key.startswith("head.anchors_px"):
        raise CheckpointError(
            f"{what}: other anchors",
            f"{key} is {two} instead of {one}, and a head learns sizes relative to its own anchors",
            "train all of them from the same weights with --set auto_anchor=false",
        )
    raise CheckpointError(
        f"{what}: another model", f"{key} is {two!r} instead of {one!r}", "merge weights of one model"
    )


def _different_classes(one: Sequence[str], two: Sequence[str]) -> str:
    if len(one) != len(two):
        return f"{len(two)} instead of {len(one)}"
    i = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
    order = ", the same ones in another order" if sorted(one) == sorted(two) else ""
    return f"class {i} is {two[i]!r} instead of {one[i]!r}{order}"


_ABSENT = "(absent)"


def _first_difference(one: Any, two: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Dotted key and both values of the first entry in which two nested mappings or sequences differ."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        # Sections last, so that `type` is named before the options that follow from it.
        for name in sorted({*one, *two}, key=lambda n: (isinstance(one.get(n), Mapping), n != "type", n)):
            below = _first_difference(one.get(name, _ABSENT), two.get(name, _ABSENT), f"{key}.{name}".lstrip("."))
            if below is not None:
                return below
        return None
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return next((found for i, (a, b) in pairs if (found := _first_difference(a, b, f"{key}.{i}"))), None)
    return None if one == two else (key, one, two)


def _merged(parents: Sequence[_Parent]) -> WeightsMetadata:
    """Facts of the average; what only held for one of the parents is left out."""
    facts = [parent.facts for parent in parents]
    first = facts[0]
    return dataclasses.replace(
        first,
        class_names=next((f.class_names for f in facts if f.class_names), ()),
        category_ids=first.category_ids if all(f.category_ids == first.category_ids for f in facts) else None,
        image_size=next((f.image_size for f in facts if f.image_size), None),
        metrics={},
        recipe_hash=first.recipe_hash if all(f.recipe_hash == first.recipe_hash for f in facts) else "",
        parent="",
        parents={str(parent.path): parent.share for parent in parents},
        provenance="; ".join(dict.fromkeys(f.provenance for f in facts if f.provenance)),
        statistics="averaged",
    )
