"""Options of the loss of several tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_Gain = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiLossConfig:
    """How the losses of tasks on one representation are weighed against each other.

    Attributes:
        balance: `fixed`: the sum of the gains times the losses; `uncertainty`: ``(exp(-s) L + s) / 2`` of each loss L
            with a learned log-variance s (arXiv 1705.07115, 1909.12605).
        boxes, tags, embeddings: gains; 0 switches a task off, and with `uncertainty` any other one has no effect.
    """

    balance: Literal["fixed", "uncertainty"] = "fixed"
    boxes: _Gain = 1.0
    tags: _Gain = 1.0
    embeddings: _Gain = 1.0
