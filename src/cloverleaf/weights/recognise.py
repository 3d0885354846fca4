"""Which published variant a state dict looks like, by its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from cloverleaf.models.catalog import find_spec
from cloverleaf.models.spec import Form
from cloverleaf.weights.importer import PUBLISHED, published_shapes, recognise_form
from cloverleaf.weights.importers import yolov7
from cloverleaf.weights.strict import Shape

_CERTAIN, _LIKELY = 0.9, 0.5
_NOT_COMPARED = re.compile(r"num_batches_tracked$|\.(ia|im|m2)\.\d+\.|^head\.m\.\d+\.")  # optional, or of the classes


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much a state dict looks like a published variant.

    Attributes:
        name: of the variant.
        form: of the state dict.
        share: of the tensors of both, those with the same name and shape, in [0, 1]; what depends on the number of
            classes is not compared.
        also: variants with the very same names and shapes.
    """

    name: str
    form: Form
    share: float
    also: tuple[str, ...] = ()

    @property
    def is_certain(self) -> bool:
        """Nearly everything agrees."""
        return self.share >= _CERTAIN

    @property
    def is_likely(self) -> bool:
        """More agrees than does not."""
        return self.share >= _LIKELY


def recognise(state: Mapping[str, Tensor]) -> Likeness:
    """The published variant that looks most like ``state``; see whether it `is_likely` at all."""
    form = recognise_form(state)
    found = _comparable({key: tuple(value.shape) for key, value in state.items()})
    shares: dict[str, float] = {}
    for name in _nearest_first(state):
        expected = _expected(name, form)
        agreeing = sum(found.get(key) == shape for key, shape in expected.items())
        shares[name] = agreeing / max(len(found.keys() | expected.keys()), 1)
        if shares[name] >= _CERTAIN:
            break
    best = max(shares, key=lambda name: shares[name])
    twins = [name for name in _same_place(best) if name != best and _expected(name, form) == _expected(best, form)]
    return Likeness(best, form, shares[best], tuple(twins))


def _nearest_first(state: Mapping[str, Tensor]) -> Iterator[str]:
    """All variants, first those whose head has the row that it has in ``state``."""
    row = _head_prefix(state)
    likely = [name for name in PUBLISHED if row in _head_rows(name)]
    yield from likely
    yield from (name for name in PUBLISHED if name not in likely)


def _same_place(name: str) -> Iterator[str]:
    yield from (other for other in PUBLISHED if _head_rows(other) == _head_rows(name))


def _head_prefix(keys: Mapping[str, object]) -> str:
    return next((key.removesuffix("m.0.bias") for key in keys if re.fullmatch(r"model\.\d+\.m\.0\.bias", key)), "")


@cache
def _head_rows(name: str) -> tuple[str, str]:
    spec = find_spec(name)
    return yolov7.name_table(spec).head, yolov7.name_table(spec.as_deployed()).head


@cache
def _expected(name: str, form: Form) -> dict[str, Shape]:
    spec = find_spec(name)
    forms = {"training": spec, "deploy": spec.as_deployed(), "fused": spec.as_fused()}
    return _comparable(published_shapes(forms[form]))


def _comparable(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    head = _head_prefix(shapes)
    named = {f"head.{key.removeprefix(head)}" if head and key.startswith(head) else key: v for key, v in shapes.items()}
    return {key: shape for key, shape in named.items() if not _NOT_COMPARED.search(key)}
