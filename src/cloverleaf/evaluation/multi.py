"""Boxes, image-level labels and embeddings of one model, judged together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cloverleaf.evaluation.coco import CocoMetrics, finite_or_none
from cloverleaf.evaluation.retrieval import RANKS, RetrievalMetrics
from cloverleaf.evaluation.tags import TagMetrics

TAG_COLUMNS = ("tag_mAP", "tag_F1", "tag_F1_macro")
RETRIEVAL_COLUMNS = (*(f"R{k}" for k in RANKS), "retrieval_mAP")


class Place(NamedTuple):
    """An object: its image file, and its box ``(x1, y1, x2, y2)`` in pixels of it."""

    path: Path
    box_xyxy: tuple[float, float, float, float]


class Example(NamedTuple):
    """A query and the most similar objects in other images, best first, with their cosines and whether they are the
    same individual."""

    query: Place
    nearest: tuple[Place, ...]
    similarity: tuple[float, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class MultiMetrics:
    """Result of one evaluation.

    Attributes:
        boxes: the COCO numbers, curves and confusion matrix.
        tags: None where the model or the dataset has none.
        retrieval: by embeddings at the true boxes; None where the model has no embeddings or the dataset no identities.
        examples: some queries, for a picture.
        counted: tasks that the fitness counts, as far as they were judged; of a run those that it learns.
    """

    boxes: CocoMetrics
    tags: TagMetrics | None = None
    retrieval: RetrievalMetrics | None = None
    examples: tuple[Example, ...] = ()
    counted: tuple[str, ...] = ("boxes", "tags", "embeddings")

    @property
    def values(self) -> dict[str, float]:
        """Numbers of the whole dataset by name, of what was judged; undefined ones are NaN."""
        return {
            **self.boxes.values,
            **(self.tags.values if self.tags is not None else {}),
            **(self.retrieval.values if self.retrieval is not None else {}),
        }

    def __getitem__(self, name: str) -> float:
        """A number by name; NaN of what was not judged."""
        if name in (*TAG_COLUMNS, *RETRIEVAL_COLUMNS):
            return self.values.get(name, math.nan)
        return self.values[name]

    @property
    def fitness(self) -> float:
        """Mean of the fitness of the boxes, the mAP of tags and the mAP of retrieval, as far as they count and were
        judged; the best weights of a run are chosen by it. What is undefined counts as 0."""
        parts = [self.boxes.fitness] if "boxes" in self.counted else []
        if "tags" in self.counted and self.tags is not None:
            parts.append(finite_or_none(self["tag_mAP"]) or 0.0)
        if "embeddings" in self.counted and self.retrieval is not None:
            parts.append(finite_or_none(self["retrieval_mAP"]) or 0.0)
        return sum(parts) / max(len(parts), 1)

    def to_dict(self) -> dict[str, float | None]:
        """The numbers of the whole dataset, flat; None what is undefined or was not judged."""
        names = (*TAG_COLUMNS, *RETRIEVAL_COLUMNS)
        return {**self.boxes.to_dict(), **{name: finite_or_none(self[name]) for name in names}, "fitness": self.fitness}

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the curves; undefined numbers are null. What was not judged is not there."""
        numbers = {name: finite_or_none(value) for name, value in self.values.items()}
        content = {**self.boxes.to_json(), **numbers, "fitness": self.fitness}
        if self.tags is not None:
            content["tags"] = self.tags.to_json()
        if self.retrieval is not None:
            content["retrieval"] = self.retrieval.to_json()
        return content
