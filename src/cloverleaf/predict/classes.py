"""Which category of a dataset each label of a model is."""

from __future__ import annotations

from collections.abc import Sequence

from cloverleaf.errors import DataError


def match_classes(
    model_names: Sequence[str] | None, data_names: Sequence[str], category_ids: Sequence[int]
) -> tuple[int | None, ...]:
    """Category id of the dataset for every label of the model, matched by name.

    Args:
        model_names: classes of the model in the order of its labels; None where it has no names (then the order of the
            dataset is taken).
        data_names: classes of the dataset.
        category_ids: their ids.

    Returns:
        An id per label; None for a class that the dataset does not have: what is found of it cannot be judged.

    Raises:
        DataError: the model does not know a class of the dataset, or two of its classes have one name.
    """
    if model_names is None or list(model_names) == list(data_names):
        return tuple(category_ids)
    repeated = sorted({name for name in model_names if list(model_names).count(name) > 1})
    if repeated:
        raise DataError(
            what="the classes of the weights cannot be matched by name",
            why=f"several are called {repeated[:5]}",
            fix="name the classes of the dataset in the order of the weights",
        )
    missing = sorted(set(data_names) - set(model_names))
    if missing:
        raise DataError(
            what="the weights do not know every class of the dataset",
            why=f"{len(missing)} of {len(data_names)} are missing {missing[:5]}; the weights know {[*model_names[:5]]}",
            fix="train on this dataset first, or rename its classes to those of the weights",
        )
    by_name = dict(zip(data_names, category_ids, strict=True))
    return tuple(by_name.get(name) for name in model_names)
