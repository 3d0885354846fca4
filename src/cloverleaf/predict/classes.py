"""Which category of a dataset each label of a model is, and which labels a user means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from cloverleaf.errors import ConfigError, DataError, suggest


def match_classes(
    model_names: Sequence[str] | None,
    data_names: Sequence[str],
    category_ids: Sequence[int],
    *,
    kind: Literal["class", "tag"] = "class",
) -> tuple[int | None, ...]:
    """Category id of the dataset for every label of the model, matched by name.

    Args:
        model_names: classes of the model in the order of its labels; None where it has no names (then the order of the
            dataset is taken).
        data_names: classes of the dataset.
        category_ids: their ids.
        kind: what messages call them.

    Returns:
        An id per label; None for a class that the dataset does not have: what is found of it cannot be judged.

    Raises:
        DataError: the model does not know a class of the dataset, or two of its classes have one name.
    """
    if model_names is None or list(model_names) == list(data_names):
        return tuple(category_ids)
    plural = {"class": "classes", "tag": "tags"}[kind]
    repeated = sorted({name for name in model_names if list(model_names).count(name) > 1})
    if repeated:
        raise DataError(
            what=f"the {plural} of the weights cannot be matched by name",
            why=f"several are called {repeated[:5]}",
            fix=f"name the {plural} of the dataset in the order of the weights",
        )
    missing = sorted(set(data_names) - set(model_names))
    if missing:
        raise DataError(
            what=f"the weights do not know every {kind} of the dataset",
            why=f"{len(missing)} of {len(data_names)} are missing {missing[:5]}; the weights know {[*model_names[:5]]}",
            fix="train on this dataset first, or rename its classes to those of the weights",
        )
    by_name = dict(zip(data_names, category_ids, strict=True))
    return tuple(by_name.get(name) for name in model_names)


def resolve_classes(classes: Iterable[str | int], names: Sequence[str]) -> tuple[int, ...]:
    """Labels of classes given by name or by number (also as text, where no class has that name).

    Raises:
        ConfigError: no such class, or none given.
    """
    labels = []
    for item in [classes] if isinstance(classes, str | int) else classes:
        if isinstance(item, str) and item in names:
            labels.append(names.index(item))
            continue
        text = str(item).strip()
        if isinstance(item, bool) or not text.lstrip("-").isdecimal():
            raise ConfigError(f"the model has no class {item!r}", f"it knows {len(names)}", suggest(str(item), names))
        if not 0 <= int(text) < len(names):
            raise ConfigError(
                f"the model has no class {item}", f"labels run from 0 to {len(names) - 1}", "use a name or a label"
            )
        labels.append(int(text))
    if not labels:
        raise ConfigError("no class is left to detect", "the list of classes is empty", "leave it out to keep all")
    return tuple(sorted(set(labels)))
