"""Deep supervision: what the auxiliary head of a model learns (arXiv 2207.02696, section 4.2 and figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cloverleaf.structures import AnchorAssigner, AnchorAssignment, AnchorOutput, Targets


@dataclass(frozen=True, slots=True)
class IndependentAssigner:
    """The auxiliary head chooses its matches by its own predictions, as the lead head does by its (figure 5 c).

    Attributes:
        assigner: how it chooses.
    """

    assigner: AnchorAssigner

    def __call__(
        self,
        raw: AnchorOutput,
        lead: AnchorAssignment,
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """See `cloverleaf.structures.AuxiliaryAssigner`."""
        assert raw.auxiliary is not None
        return self.assigner(raw.auxiliary, targets, anchors_px, strides, size_hw)


@dataclass(frozen=True, slots=True)
class LeadGuidedAssigner:
    """The auxiliary head learns the matches of the lead head (figure 5 d): the lead learns what is left over."""

    def __call__(
        self,
        raw: AnchorOutput,
        lead: AnchorAssignment,
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """See `cloverleaf.structures.AuxiliaryAssigner`."""
        return lead


@dataclass(frozen=True, slots=True)
class CoarseToFineAssigner:
    """The auxiliary head learns more cells than the lead head, chosen by the lead's predictions (figure 5 e).

    The lead's own labels are the fine ones. The coarse ones come from an assigner with more candidates, so that the
    auxiliary head, which learns less well, loses fewer objects; the lead keeps the sharper labels for precision.

    Attributes:
        coarse: chooses the coarse labels; published: SimOTA over the own cell and its four neighbours (`reach` 1.0).
    """

    coarse: AnchorAssigner

    def __call__(
        self,
        raw: AnchorOutput,
        lead: AnchorAssignment,
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """See `cloverleaf.structures.AuxiliaryAssigner`."""
        return self.coarse(raw.levels, targets, anchors_px, strides, size_hw)
