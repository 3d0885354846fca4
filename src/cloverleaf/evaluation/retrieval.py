"""Embeddings: is the nearest object in another image the same individual?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.evaluation.chance import chance_precision
from cloverleaf.evaluation.coco import finite_or_none

RANKS = (1, 5, 10)
NEAREST = 5  # so many of the nearest objects are kept of every query
_VALUES_PER_BLOCK = 2**22  # similarities that are in memory at once

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Retrieved(NamedTuple):
    """Means over a number of queries, NaN where there are none.

    Attributes:
        queries: how many.
        values: ``R1``, ``R5``, ``R10`` and ``retrieval_mAP``.
        chance: the same to be expected of a gallery in random order.
    """

    queries: int
    values: dict[str, float]
    chance: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        return {
            "queries": self.queries,
            **{name: finite_or_none(value) for name, value in self.values.items()},
            "chance": {name: finite_or_none(value) for name, value in self.chance.items()},
        }


@dataclass(frozen=True, slots=True)
class RetrievalMetrics:
    """Result of one evaluation of M objects with an identity, of which Q are queries.

    Attributes:
        all: means over all queries.
        seen, unseen: over those of individuals that were in training, and that were not; None where it is not known
            which were.
        objects: M.
        individuals: how many different ones.
        without_match: objects of individuals that no other image has; they are in galleries, but are no queries.
        query: ``(Q,)`` int64 row of each query among the M objects.
        nearest: ``(Q, at most 5)`` int64 rows of the most similar objects in other images, best first; -1 where the
            gallery has no more.
        similarity: ``(Q, at most 5)`` float32 their cosines.
        right: ``(Q, at most 5)`` bool, whether they are the same individual.
        precision: ``(Q,)`` average precision of each query.
    """

    all: Retrieved
    seen: Retrieved | None
    unseen: Retrieved | None
    objects: int
    individuals: int
    without_match: int
    query: Integers
    nearest: Integers
    similarity: npt.NDArray[np.float32]
    right: npt.NDArray[np.bool_]
    precision: Floats

    @property
    def values(self) -> dict[str, float]:
        """``R1``, ``R5``, ``R10``: share of the queries with an object of the same individual among so many nearest;
        ``retrieval_mAP``: mean over the queries of the average precision of their ranking."""
        return self.all.values

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        parts = {"all": self.all, "seen": self.seen, "unseen": self.unseen}
        return {
            "objects": self.objects,
            "individuals": self.individuals,
            "without_match": self.without_match,
            **{name: part.to_json() for name, part in parts.items() if part is not None},
        }


class _Ranked(NamedTuple):
    """Of n queries: place of the first match (from 0), average precision, matches and gallery size ``(n,)``, and the
    nearest objects ``(n, NEAREST)`` with their cosines."""

    first: Tensor
    precision: Tensor
    matches: Tensor
    gallery: Tensor
    nearest: Tensor
    similarity: Tensor


def retrieval_metrics(
    embeddings: npt.NDArray[np.floating[Any]],
    identities: npt.NDArray[np.integer[Any]],
    image_ids: npt.NDArray[np.integer[Any]],
    *,
    trained: npt.NDArray[np.integer[Any]] | None = None,
) -> RetrievalMetrics:
    """Rank by cosine similarity, for every object with an identity, all others with one that are in other images.

    Objects of the same image are in no gallery of each other: they are different individuals under the same light.
    Equal similarities keep the order of the objects.

    Args:
        embeddings: ``(M, D)``, of any length.
        identities: ``(M,)``, -1 where unknown; such objects are left out.
        image_ids: ``(M,)``.
        trained: identities that were in training, or None where that is unknown.
    """
    known = np.flatnonzero(np.asarray(identities) >= 0)
    values = torch.nn.functional.normalize(torch.from_numpy(np.asarray(embeddings, np.float32)[known]), dim=1)
    who, where = (torch.from_numpy(np.asarray(a, np.int64)[known]) for a in (identities, image_ids))
    rows = _queries(who, where)
    block = max(_VALUES_PER_BLOCK // max(len(values), 1), 1)
    parts = [_rank(values, who, where, part) for part in rows.split(block)] if len(rows) else []
    ranked = _Ranked(*(torch.cat(columns) for columns in zip(*parts, strict=True))) if parts else _nothing()
    precision, chance = ranked.precision.numpy(), _chances(ranked.gallery.numpy(), ranked.matches.numpy())
    found = {f"R{k}": (ranked.first < k).numpy().astype(np.float64) for k in RANKS} | {"retrieval_mAP": precision}

    def part(chosen: npt.NDArray[np.bool_]) -> Retrieved:
        return Retrieved(int(chosen.sum()), _means(found, chosen), _means(chance, chosen))

    old = None if trained is None else np.isin(who[rows].numpy(), trained)
    original = np.append(known, -1)  # the last for places that the gallery does not fill
    nearest = ranked.nearest.numpy()
    return RetrievalMetrics(
        all=part(np.ones(len(rows), np.bool_)),
        seen=None if old is None else part(old),
        unseen=None if old is None else part(~old),
        objects=len(known),
        individuals=len(who.unique()),
        without_match=len(known) - len(rows),
        query=known[rows.numpy()],
        nearest=original[nearest],
        similarity=ranked.similarity.numpy(),
        right=(nearest >= 0) & (torch.cat([who, who.new_tensor([-2])])[nearest] == who[rows][:, None]).numpy(),
        precision=precision,
    )


def _queries(who: Tensor, where: Tensor) -> Tensor:
    """Rows of the objects whose individual is in another image too."""
    pairs, individual = torch.unique(torch.stack([who, where], 1), dim=0, return_inverse=True)
    _, owner, images = torch.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    return (images[owner][individual] > 1).nonzero()[:, 0]


def _rank(values: Tensor, who: Tensor, where: Tensor, rows: Tensor) -> _Ranked:
    """Of some queries, given by their rows."""
    similarity = values[rows] @ values.T
    similarity[where[rows][:, None] == where] = -torch.inf
    ordered, order = similarity.sort(dim=1, descending=True, stable=True)
    inside = ordered > -torch.inf
    hit = (who[order] == who[rows][:, None]) & inside
    places = torch.arange(1, hit.shape[1] + 1, dtype=torch.float64)
    matches = hit.sum(1)
    precision = ((hit.cumsum(1) / places) * hit).sum(1) / matches
    shown = order[:, :NEAREST].masked_fill(~inside[:, :NEAREST], -1)
    return _Ranked(hit.int().argmax(1), precision, matches, inside.sum(1), shown, ordered[:, :NEAREST])


def _nothing() -> _Ranked:
    """Of no queries."""
    none, nobody = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    return _Ranked(nobody, none, nobody, nobody, nobody.reshape(0, NEAREST), torch.zeros(0, NEAREST))


def _chances(gallery: Integers, matches: Integers) -> dict[str, Floats]:
    """What a gallery of g objects, m of them matches, gives each query in random order, in the mean.

    None of the first k is a match with probability C(g - m, k) / C(g, k).
    """
    chances = {}
    for k in RANKS:
        drawn = np.arange(k)[None]
        left = (gallery - matches)[:, None] - drawn
        missed = np.where(left > 0, left / np.maximum(gallery[:, None] - drawn, 1), 0.0).prod(1)
        chances[f"R{k}"] = 1 - missed
    chances["retrieval_mAP"] = chance_precision(gallery, matches)
    return chances


def _means(columns: dict[str, Floats], chosen: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Mean of each column over the chosen queries."""
    some = bool(chosen.any())
    return {name: float(values[chosen].mean()) if some else float("nan") for name, values in columns.items()}
