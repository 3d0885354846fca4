"""Gains and options of the segmentation criteria: `--set loss.regions.x=` and so on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Gain = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RegionLossConfig:
    """Gains of `RegionCriterion`; all 1 as published.

    Attributes:
        objectness: of the region proposals' cross-entropy.
        proposal: of the region proposals' boxes.
        cls: of the classes of regions.
        box: of the boxes of regions.
        mask: of the masks.
    """

    objectness: Gain = 1.0
    proposal: Gain = 1.0
    cls: Gain = 1.0
    box: Gain = 1.0
    mask: Gain = 1.0


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CascadeLossConfig:
    """Gains and options of `CascadeCriterion`; the defaults are those published with RevCol.

    Attributes:
        objectness: of the region proposals' cross-entropy.
        proposal: of the region proposals' boxes.
        cls: of the classes of regions.
        box: of the boxes of regions; None takes 10 for `giou` and 1 for `smooth-l1`.
        mask: of the masks.
        box_loss: 1 - GIoU of the decoded boxes, or smooth L1 of the deltas, as in the paper.
        stage_weights: of the three losses of regions in each stage.
    """

    objectness: Gain = 1.0
    proposal: Gain = 1.0
    cls: Gain = 1.0
    box: Gain | None = None
    mask: Gain = 1.0
    box_loss: Literal["giou", "smooth-l1"] = "giou"
    stage_weights: tuple[Gain, ...] = (1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PixelLossConfig:
    """Gains of `PixelCriterion`; the defaults are those published with RevCol.

    Attributes:
        main: of the cross-entropy of the logits, brought to the size of the input.
        auxiliary: of the same of the auxiliary head's.
    """

    main: Gain = 1.0
    auxiliary: Gain = 0.4


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SemanticLossConfig:
    """Gains and options of `SemanticCriterion`; the defaults are the paper's.

    Attributes:
        coarse: gain of the cross-entropy of the coarse logits, brought to the size of the input.
        point: gain of the cross-entropy of the refined points.
        points: N, points per image; None takes as many as a map of stride 16 has cells.
        oversample: k, so many times N uniform points are candidates.
        importance: beta, the share of the N points that are the least certain candidates; the others are uniform.
    """

    coarse: Gain = 1.0
    point: Gain = 1.0
    points: Annotated[int, Field(ge=1)] | None = None
    oversample: Annotated[float, Field(ge=1, le=100)] = 3.0
    importance: Annotated[float, Field(ge=0, le=1)] = 0.75
