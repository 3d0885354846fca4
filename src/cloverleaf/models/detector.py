"""A detector: a backbone, a neck and a head, in this order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.heads.anchor_based import AnchorHead, AnchorHeadSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.heads.multi import MultiHead, MultiHeadSpec
from cloverleaf.layers.implicit import fold_alignment
from cloverleaf.layers.rep import reparameterize
from cloverleaf.losses.supervision import SourceWeights
from cloverleaf.losses.supervision_config import SupervisionLossConfig
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.models.spec import DetectorSpec, Task
from cloverleaf.structures import AuxiliaryOutput, FeatureSpec, SupervisedOutput


class Supervision(Protocol):
    """Further supervision of a model, in training only."""

    columns: tuple[int, ...]  # earlier columns that it reads, ascending, of a backbone in columns; none of any other
    loss_options: frozenset[str]  # the options loss.supervision.* that count

    def weights(self, config: SupervisionLossConfig) -> tuple[SourceWeights, ...]:
        """Of the losses of what it says."""

    def __call__(self, images: Tensor, columns: Sequence[Sequence[Tensor]]) -> tuple[AuxiliaryOutput, ...]:
        """What it says of ``images`` ``(B, 3, H, W)``, the maps of those columns, and last the backbone's own maps."""


class Detector(nn.Module):
    """Images to raw predictions; `decode` turns them into boxes and scores, and NMS is a separate function.

    Attributes:
        backbone, neck, head: the parts, in the order of the data.
        supervision: a `Supervision`, or None; `deployed` drops it.
        spec: what it was built from.
        metadata: what its weights file says about it, or None.
    """

    head: Any  # what it has beyond `num_classes`, `strides` and `deploy` depends on the task

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, head: nn.Module, spec: DetectorSpec, supervision: Any = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.supervision = supervision
        self.spec = spec
        self.metadata: WeightsMetadata | None = None

    def forward(self, images: Tensor) -> Any:
        """``(B, 3, H, W)`` float RGB in [0, 1], H and W multiples of `max_stride` -> raw output, in every mode.

        Its type depends on the head: `AnchorOutput`, `DenseOutput` and so on, the same while training and evaluating;
        only a model with `supervision` gives a `SupervisedOutput` with it while training.

        Raises:
            ConfigError: the images have another shape or type.
        """
        return self.forward_with_maps(images)[0]

    def forward_with_maps(self, images: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
        """`forward`, and the neck's maps, with which those of a teacher are compared."""
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            self._check_images(images)
        if self.supervision is None or not self.training:
            maps = self.features(images)
            return self.head(maps), maps
        wanted, backbone = self.supervision.columns, cast(Any, self.backbone)
        columns = backbone.forward_columns(images, wanted) if wanted else [backbone(images)]
        maps = self.neck(columns[-1])
        return SupervisedOutput(self.head(maps), self.supervision(images, columns), images), maps

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The neck's maps, finest first: what the head reads."""
        return self.neck(self.backbone(images))

    def decode(self, raw: Any, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Raw output for images of ``size_hw`` -> boxes and scores.

        Returns:
            Boxes ``(B, N, 4)`` float32 xyxy in network-input pixels, not clipped; scores ``(B, N, K)`` float32 in
            [0, 1]. Order: stride ascending, then anchor, then row, then column.

        Raises:
            ConfigError: ``raw`` does not come from images of that size.
        """
        if self.task not in ("detect", "multi"):
            raise ConfigError(
                f"{self.spec.name} does not give boxes and scores", f"it is a model for --task {self.task}",
                "use its head's `instances` or `segment`",
            )  # fmt: skip
        return self.head.decode(raw, size_hw)

    @property
    def task(self) -> Task:
        """What the model is for."""
        return self.spec.task

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.head.num_classes)

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of each level, ascending."""
        return tuple(self.head.strides)

    @property
    def max_stride(self) -> int:
        """Input sides must be multiples of this."""
        return max(cast(FeatureSpec, self.backbone.features).strides)

    @property
    def has_anchors(self) -> bool:
        """Whether its predictions are relative to anchors, which can be fitted to the data."""
        return isinstance(self.box_head, AnchorHead)

    @property
    def box_head(self) -> Any:
        """The head for boxes, which in a head for several tasks is a part of it."""
        return self.head.boxes if isinstance(self.head, MultiHead) else self.head

    @property
    def anchors_px(self) -> Tensor:
        """``(L, A, 2)`` anchor (width, height) in input pixels; set them with ``box_head.set_anchors``.

        Raises:
            ConfigError: the model has none.
        """
        if not isinstance(self.box_head, AnchorHead):
            raise ConfigError(f"{self.spec.name} has no anchors", "its head is not anchor-based", "do without them")
        return self.box_head.anchors_px

    def current_spec(self) -> DetectorSpec:
        """``spec`` with the anchors that the head holds now (from training, or from weights)."""
        head = self.spec.head
        if isinstance(head, MultiHeadSpec):
            return replace(self.spec, head=replace(head, boxes=self._with_anchors(head.boxes)))
        return replace(self.spec, head=self._with_anchors(head))

    def _with_anchors(self, head: Any) -> Any:
        """Options of the head for boxes with its present anchors; those of other heads as they are."""
        if isinstance(head, DenseHeadSpec):
            return replace(head, anchors_px=self.box_head.own_anchors_px)
        if isinstance(head, AnchorHeadSpec):
            return replace(head, anchors_px=_nested_tuple(self.anchors_px.tolist()))
        return head

    def deployed(self) -> Detector:
        """A copy in evaluation mode without implicit knowledge (folded) and auxiliary head (dropped).

        Normalisation and the branches of re-parameterisable blocks stay. A model without them is copied as it is.
        """
        deployed = copy.deepcopy(self)
        deployed.head.deploy()
        fold_alignment(deployed.neck)
        deployed.eval()  # also what folding has made
        deployed.supervision = None
        deployed.spec = self.spec.as_deployed() if not self.spec.fused else self.spec
        return deployed

    def fused(self) -> Detector:
        """A copy in evaluation mode with everything folded that can be: the cheapest equal form.

        Normalisation, the branches of re-parameterisable blocks and implicit knowledge are folded into convolutions,
        and the auxiliary head is dropped; this model is unchanged.
        """
        if self.spec.fused:
            raise ConfigError(f"{self.spec.name} is fused already", "there is nothing left to fold", "use it as it is")
        fused = cast(Detector, reparameterize(self.deployed()))
        fused.spec = self.spec.as_fused()
        return fused

    def _check_images(self, images: Tensor) -> None:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"{self.spec.name} cannot read images of shape {shape} and type {images.dtype}",
                "it needs (B, 3, H, W) floating-point RGB in [0, 1]",
                "permute to channels first, add a batch axis and divide uint8 by 255",
            )
        stride = self.max_stride
        if shape[2] % stride or shape[3] % stride or not shape[2] or not shape[3]:
            lower = tuple(max(side // stride, 1) * stride for side in shape[2:])
            upper = tuple((side // stride + 1) * stride if side % stride else max(side, stride) for side in shape[2:])
            raise ConfigError(
                f"image size {shape[2:]} does not fit {self.spec.name}",
                f"its coarsest feature map has stride {stride}",
                f"use (height, width) {lower} or {upper}" if lower != upper else f"use (height, width) {lower}",
            )


def _nested_tuple(values: Any) -> Any:
    return tuple(map(_nested_tuple, values)) if isinstance(values, list) else values
