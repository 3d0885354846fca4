"""The criterion that fits a detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, assert_never

from torch import Tensor

from cloverleaf.assigners.anchor_ratio import AnchorRatioAssigner
from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.criteria import AnchorCriterion
from cloverleaf.structures import AnchorAssigner


class AnchorDetector(Protocol):
    """What a criterion must know of a detector with an anchor-based head."""

    @property
    def anchors_px(self) -> Tensor:
        """``(L, A, 2)`` (width, height) in input pixels."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of each level."""

    @property
    def num_classes(self) -> int:
        """K."""


def build_assigner(config: LossConfig) -> AnchorAssigner:
    """The assigner that `config.assigner` names."""
    match config.assigner:
        case "simota":
            return SimOtaAssigner(anchor_t=config.anchor_t, top_candidates=config.dynamic_k_candidates)
        case "anchor_ratio":
            return AnchorRatioAssigner(anchor_t=config.anchor_t)
        case _:
            assert_never(config.assigner)


def build_criterion(
    model: AnchorDetector,
    config: LossConfig,
    *,
    image_size: int,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> AnchorCriterion:
    """The training criterion of `model`.

    Args:
        model: its anchors are copied, so build the criterion after they are final.
        config: gains, options and the assigner.
        image_size: training size in pixels (the longer side).
        reduce: sums a tensor over the processes of a distributed run; see `AnchorCriterion`.
    """
    return AnchorCriterion(
        config,
        anchors_px=model.anchors_px,
        strides=model.strides,
        num_classes=model.num_classes,
        image_size=image_size,
        assigner=build_assigner(config),
        reduce=reduce,
    )
