"""Weights of what supervises a model beside its head (`--set loss.supervision.x=`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Weight = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SupervisionLossConfig:
    """The loss of a model's head has weight 1. To leave a term out, leave its part out: `model.supervision.*`.

    Attributes:
        falling: weight of the first column's reconstruction (arXiv 2212.11696, section 2.3; published 3.0); it falls
            to 0 at the last column.
        rising: weight that the loss of a head would have on the last column (published 0.7); it rises to this from the
            first.
        branch: weight of the loss of an auxiliary reversible branch.
    """

    falling: Weight = 3.0
    rising: Weight = 0.7
    branch: Weight = 0.25
