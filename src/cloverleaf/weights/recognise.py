"""Which published variant a state dict looks like, by its names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from cloverleaf.models.catalog import find_spec
from cloverleaf.models.spec import Form
from cloverleaf.weights.importer import FAMILIES, find_family, published_shapes
from cloverleaf.weights.importers.family import Family
from cloverleaf.weights.strict import Shape

_CERTAIN, _LIKELY = 0.9, 0.5


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
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    shares: dict[str, float] = {}
    for family in [family for family in FAMILIES if family.is_like(shapes)] or FAMILIES:
        found, form = family.comparable(shapes), family.recognise_form(shapes)
        for name in _likely_first(family, shapes):
            expected = _expected(name, form)
            agreeing = sum(found.get(key) == shape for key, shape in expected.items())
            shares[name] = agreeing / max(len(found.keys() | expected.keys()), 1)
            if shares[name] >= _CERTAIN:
                break
    best = max(shares, key=lambda name: shares[name])
    form = find_family(find_spec(best)).recognise_form(shapes)
    return Likeness(best, form, shares[best], _twins(best, form))


def _likely_first(family: Family, shapes: Mapping[str, Shape]) -> Iterator[str]:
    """All variants of a family."""
    likely = family.likely(shapes)
    yield from likely
    yield from (name for name in family.NAMES if name not in likely)


def _twins(name: str, form: Form) -> tuple[str, ...]:
    """Other variants with the same names and shapes."""
    expected = _expected(name, form)
    others = [other for other in find_family(find_spec(name)).likely(_published(name, form)) if other != name]
    return tuple(other for other in others if _expected(other, form) == expected)


def _expected(name: str, form: Form) -> dict[str, Shape]:
    return find_family(find_spec(name)).comparable(_published(name, form))


@cache
def _published(name: str, form: Form) -> dict[str, Shape]:
    spec = find_spec(name)
    forms = {"training": spec, "deploy": spec.as_deployed(), "fused": spec.as_fused()}
    return published_shapes(forms[form])
