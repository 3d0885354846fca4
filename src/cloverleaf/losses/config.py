"""Gains and options of the criteria; every field is a `--set loss.x=` option."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.losses.anchor_gains import GainRule
from cloverleaf.losses.dense_config import DenseLossConfig
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.losses.segmentation_config import (
    CascadeLossConfig,
    PixelLossConfig,
    RegionLossConfig,
    SemanticLossConfig,
)
from cloverleaf.losses.supervision_config import SupervisionLossConfig

Gain = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LossConfig:
    """The published loss of YOLOv7 (arXiv 2207.02696), by default as its `tiny` recipe has it, or of YOLOR.

    YOLOR (2105.04206) as released: ``gains="yolor"`` and ``assigner="anchor_ratio"``, and for the models that were
    published as darknet configurations ``cell_ties="lower"``.

    Attributes:
        assigner: `simota` (as published for training) or `anchor_ratio` (every candidate is a positive).
        cell_ties: a centre exactly between two cells proposes both neighbours along that axis (`both`, YOLOv7 and the
            form of YOLOR behind its paper's tables) or the left or upper one alone (`lower`, YOLOR's darknet form).
        box, cls, obj: gains as published for 640 px, 80 classes, 3 levels; scaled when `scale_gains`.
        gains: whose scaling, and whose weights of the levels in the objectness loss.
        scale_gains: box *= 3/L; cls *= K/80 * 3/L; obj *= 3/L times (size/640)^2 by `yolov7`, or times 1.4 from four
            levels on by `yolor`, as published.
        cls_pw, obj_pw: positive weights of the two binary cross-entropies.
        fl_gamma: focal exponent; 0 switches the focal weighting off.
        anchor_t: largest side ratio between a box and an anchor that may match.
        label_smoothing: epsilon of the class targets.
        objectness_iou_ratio: `gr`; share of the IoU in the objectness target.
        dynamic_k_candidates: how many best IoUs are summed for the dynamic k; None for the published numbers: 10 for a
            model without auxiliary head, 20 for one with it.
        autobalance: adapt the level weights of the objectness loss.
        auxiliary: what an auxiliary head learns: its own matches (`independent`), the lead's (`lead-guided`), or more
            cells chosen by the lead's predictions (`coarse-to-fine`, published).
        auxiliary_gain: weight of the auxiliary head's loss against the lead's.
        auxiliary_bound: limit the objectness of coarse labels by the distance to the object; see
            `cloverleaf.losses.objectness.coarse_bound`.
        dense: gains and options of anchor-free heads; none of the above are theirs.
        regions: gains of Mask R-CNN.
        cascade: gains and options of Cascade Mask R-CNN.
        semantic: gains and options of PointRend.
        pixels: gains of UPerNet.
        multi: how several tasks are weighed against each other; the options of boxes are those of their head.
        supervision: weights of what `model.supervision` adds.
    """

    assigner: Literal["simota", "anchor_ratio"] = "simota"
    cell_ties: Literal["both", "lower"] = "both"
    box: Gain = 0.05
    cls: Gain = 0.5
    obj: Gain = 1.0
    gains: GainRule = "yolov7"
    scale_gains: bool = True
    cls_pw: Gain = 1.0
    obj_pw: Gain = 1.0
    fl_gamma: Gain = 0.0
    anchor_t: Annotated[float, Field(gt=1)] = 4.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    objectness_iou_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    dynamic_k_candidates: Annotated[int, Field(ge=1)] | None = None
    autobalance: bool = False
    auxiliary: Literal["independent", "lead-guided", "coarse-to-fine"] = "coarse-to-fine"
    auxiliary_gain: Annotated[float, Field(gt=0)] = 0.25
    auxiliary_bound: bool = False
    dense: DenseLossConfig = Field(default_factory=DenseLossConfig)
    regions: RegionLossConfig = Field(default_factory=RegionLossConfig)
    cascade: CascadeLossConfig = Field(default_factory=CascadeLossConfig)
    semantic: SemanticLossConfig = Field(default_factory=SemanticLossConfig)
    pixels: PixelLossConfig = Field(default_factory=PixelLossConfig)
    multi: MultiLossConfig = Field(default_factory=MultiLossConfig)
    supervision: SupervisionLossConfig = Field(default_factory=SupervisionLossConfig)


def changed_options(given: Any, usual: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Names, as users give them, and values of the options that differ from the usual ones, sections within included.

    Args:
        given: a dataclass of options.
        usual: another of the same kind.
        prefix: stands before the names, e.g. ``loss.dense``.
    """
    for name in (field.name for field in fields(usual)):
        value, default = getattr(given, name), getattr(usual, name)
        if is_dataclass(default) and type(value) is type(default):
            yield from changed_options(value, default, f"{prefix}.{name}")
        elif value != default:
            yield f"{prefix}.{name}", value
