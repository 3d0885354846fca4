"""Options of the loss of several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

# By the type of the head for boxes, whose losses are of very different size (docs/fidelity.md, entry 187).
USUAL_GAINS: Mapping[str, Mapping[str, float]] = {
    "anchor": {"boxes": 1.0, "tags": 0.2, "embeddings": 0.05},
    "dense": {"boxes": 1.0, "tags": 4.0, "embeddings": 1.0},
}
_Gain = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiLossConfig:
    """How the losses of tasks on one representation are weighed against each other.

    Attributes:
        balance: `fixed`: the sum of the gains times the losses; `uncertainty`: ``(exp(-s) L + s) / 2`` of each loss L
            with a learned log-variance s (arXiv 1705.07115, 1909.12605).
        boxes, tags, embeddings: gains; None for those that suit the head for boxes (`USUAL_GAINS`); 0 switches a task
            off, and with `uncertainty` any other one has no effect.
    """

    balance: Literal["fixed", "uncertainty"] = "fixed"
    boxes: _Gain | None = None
    tags: _Gain | None = None
    embeddings: _Gain | None = None
