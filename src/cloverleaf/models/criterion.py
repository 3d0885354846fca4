"""The criterion that fits a detector, and its assigners."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any, Protocol, assert_never

from torch import Tensor

from cloverleaf.assigners.anchor_ratio import AnchorRatioAssigner
from cloverleaf.assigners.lead_guided import CoarseToFineAssigner, IndependentAssigner, LeadGuidedAssigner
from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.errors import ConfigError
from cloverleaf.heads.dense import DenseHead
from cloverleaf.losses.classify import ClassifyCriterion
from cloverleaf.losses.config import LossConfig, changed_options
from cloverleaf.losses.criteria import AnchorCriterion
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.dense_config import DistillationConfig
from cloverleaf.losses.multi import MultiCriterion
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.losses.supervision import SupervisedCriterion
from cloverleaf.losses.supervision_config import SupervisionLossConfig
from cloverleaf.models.dense_criterion import dense_criterion, warmed_up
from cloverleaf.models.detector import Detector
from cloverleaf.models.multi_criterion import multi_criterion
from cloverleaf.models.segmentation_criterion import SEGMENTATION_OPTIONS, refuse_others, segmentation_criterion
from cloverleaf.models.supervised_criterion import supervised_criterion
from cloverleaf.structures import AnchorAssigner, AuxiliaryAssigner

_FINE_REACH, _COARSE_REACH = 0.5, 1.0  # own cell and normally two neighbours; own cell and all four
_TOP, _TOP_WITH_AUXILIARY = 10, 20  # published numbers of IoUs that are summed for the dynamic k


class AnchorHeadFacts(Protocol):
    """What a criterion must know of an anchor-based head beside its geometry."""

    @property
    def bins(self) -> int:
        """Bins of the sides of boxes (SigmoidBin); 0 where they are regressed."""

    @property
    def auxiliary(self) -> Sized:
        """The levels of its auxiliary head; empty without one."""


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

    @property
    def head(self) -> AnchorHeadFacts:
        """The head itself."""


def build_assigner(config: LossConfig, *, auxiliary: bool = False, bins: int = 0) -> AnchorAssigner:
    """The assigner of the lead head that `config.assigner` names.

    Args:
        config: the options.
        auxiliary: the model has an auxiliary head, which changes the published number of dynamic-k candidates.
        bins: of the head.
    """
    return _assigner(config, auxiliary, bins, _FINE_REACH)


def build_auxiliary_assigner(config: LossConfig, *, bins: int = 0) -> AuxiliaryAssigner:
    """The assigner of the auxiliary head that `config.auxiliary` names; `bins` as in `build_assigner`."""
    match config.auxiliary:
        case "independent":
            return IndependentAssigner(_assigner(config, True, bins, _FINE_REACH))
        case "lead-guided":
            return LeadGuidedAssigner()
        case "coarse-to-fine":
            return CoarseToFineAssigner(_assigner(config, True, bins, _COARSE_REACH))
        case _:
            assert_never(config.auxiliary)


def _assigner(config: LossConfig, auxiliary: bool, bins: int, reach: float) -> AnchorAssigner:
    match config.assigner:
        case "simota":
            top = config.dynamic_k_candidates or (_TOP_WITH_AUXILIARY if auxiliary else _TOP)
            return SimOtaAssigner(
                anchor_t=config.anchor_t, reach=reach, top_candidates=top, bins=bins, cell_ties=config.cell_ties
            )
        case "anchor_ratio":
            return AnchorRatioAssigner(anchor_t=config.anchor_t, reach=reach, cell_ties=config.cell_ties)
        case _:
            assert_never(config.assigner)


def build_criterion(
    model: AnchorDetector,
    config: LossConfig,
    *,
    image_size: int,
    distillation: DistillationConfig | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """The training criterion of `model`, which follows from its head.

    It is an `AnchorCriterion`, `DenseCriterion`, `RegionCriterion`, `SemanticCriterion` or `ClassifyCriterion`; that
    of a head for several tasks is a `MultiCriterion` around that of its boxes; with `model.supervision` it stands in a
    `SupervisedCriterion`.

    Args:
        model: its anchors are copied, so build the criterion after they are final.
        config: gains, options and the assigners.
        image_size: training size in pixels (the longer side).
        distillation: temperature and weights of what a teacher says; only for dense heads.
        reduce: sums a tensor over the processes of a distributed run; see `AnchorCriterion`.

    Raises:
        ConfigError: an option that has no effect on this model.
    """
    of_head = replace(config, supervision=SupervisionLossConfig())
    main = _criterion_of_head(model, of_head, image_size=image_size, distillation=distillation, reduce=reduce)
    supervision = model.supervision if isinstance(model, Detector) else None
    return supervised_criterion(main, supervision, config.supervision, reduce)


def _criterion_of_head(
    model: AnchorDetector,
    config: LossConfig,
    *,
    image_size: int,
    distillation: DistillationConfig | None,
    reduce: Callable[[Tensor], Tensor] | None,
) -> Any:
    if isinstance(model, Detector) and model.task == "classify":
        refuse_others(config, None, model.spec.name)
        return ClassifyCriterion(reduce=reduce)
    if isinstance(model, Detector) and model.task == "multi":
        of_boxes = replace(config, multi=MultiLossConfig())
        boxes = _criterion_of_boxes(model, of_boxes, image_size=image_size, distillation=distillation, reduce=reduce)
        return multi_criterion(model, config.multi, boxes, reduce=reduce)
    if isinstance(model, Detector) and model.task != "detect":
        return segmentation_criterion(model, config, reduce=reduce)
    return _criterion_of_boxes(model, config, image_size=image_size, distillation=distillation, reduce=reduce)


def _criterion_of_boxes(
    model: AnchorDetector,
    config: LossConfig,
    *,
    image_size: int,
    distillation: DistillationConfig | None,
    reduce: Callable[[Tensor], Tensor] | None,
) -> AnchorCriterion | DenseCriterion:
    if isinstance(model, Detector) and isinstance(model.box_head, DenseHead):
        return dense_criterion(model, config, distillation=distillation, reduce=reduce)
    head: AnchorHeadFacts = model.box_head if isinstance(model, Detector) else model.head
    auxiliary, bins = len(head.auxiliary) > 0, head.bins
    _check(config, auxiliary)
    return AnchorCriterion(
        config,
        anchors_px=model.anchors_px,
        strides=model.strides,
        num_classes=model.num_classes,
        bins=bins,
        image_size=image_size,
        assigner=build_assigner(config, auxiliary=auxiliary, bins=bins),
        auxiliary=build_auxiliary_assigner(config, bins=bins) if auxiliary else None,
        reduce=reduce,
    )


Assigning = AnchorCriterion | DenseCriterion | MultiCriterion | SupervisedCriterion


def warmup_criterion(criterion: Assigning) -> Assigning:
    """``criterion``, sharing its state, with an assigner that does not hang on predictions, whatever its own is.

    Of anchor-based heads every anchor-ratio candidate is a positive then, and an auxiliary head keeps its kind of
    labels; anchor-free heads have ATSS.
    """
    if isinstance(criterion, SupervisedCriterion):
        return criterion.around(*(warmup_criterion(part) for part in (criterion.main, criterion.light)))
    if isinstance(criterion, MultiCriterion):
        return criterion.around(warmup_criterion(criterion.boxes))
    if isinstance(criterion, DenseCriterion):
        return warmed_up(criterion)
    plain = replace(criterion.config, assigner="anchor_ratio")
    auxiliary = None if criterion.auxiliary is None else build_auxiliary_assigner(plain)
    return criterion.with_assigner(build_assigner(plain), auxiliary)


def _check(config: LossConfig, auxiliary: bool) -> None:
    default = LossConfig()
    others = {"dense": "has anchors", "multi": "has one task"} | dict.fromkeys(SEGMENTATION_OPTIONS, "segments nothing")
    for section, why in others.items():
        for name, value in changed_options(getattr(config, section), getattr(default, section), f"loss.{section}"):
            raise ConfigError(f"{name} = {value!r} has no effect", f"this model {why}", "leave it out")
    if not auxiliary:
        for name in ("auxiliary", "auxiliary_gain", "auxiliary_bound"):
            if (value := getattr(config, name)) != getattr(default, name):
                raise ConfigError(
                    f"loss.{name} = {value!r} has no effect", "this model has no auxiliary head",
                    "add one with model.head.auxiliary=true, or leave the option out",
                )  # fmt: skip
    elif config.auxiliary_bound and config.auxiliary != "coarse-to-fine":
        raise ConfigError(
            "loss.auxiliary_bound has no effect",
            f"it limits coarse labels, and with loss.auxiliary={config.auxiliary} there are none",
            "set loss.auxiliary=coarse-to-fine, or leave the bound out",
        )
