"""Predictions, anchors and targets of the golden losses of YOLOR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloverleaf.losses.config import LossConfig
from cloverleaf.structures import Targets

ANCHORS_P5 = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
ANCHORS_P6 = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)


@dataclass(frozen=True)
class LossCase:
    """One golden batch.

    Attributes:
        levels: raw predictions, which take gradients.
        targets: objects in pixels.
        config: the published loss with the gains of the case.
        size_hw: of the input.
        anchors_px: ``(L, A, 2)``.
        num_classes: K.
    """

    levels: tuple[Tensor, ...]
    targets: Targets
    config: LossConfig
    size_hw: tuple[int, int]
    anchors_px: Tensor
    num_classes: int

    @property
    def strides(self) -> tuple[int, ...]:
        """8, 16, ..."""
        return tuple(8 * 2**i for i in range(len(self.levels)))


def targets_of(rows: np.ndarray, size_hw: tuple[int, int], batch: int) -> Targets:
    """Rows (image, class, cx, cy, w, h), normalised, in float64 as far as they go."""
    values = torch.from_numpy(np.asarray(rows, np.float64))
    size = values.new_tensor([size_hw[1], size_hw[0]])
    centre, half = values[:, 2:4] * size, values[:, 4:6] * size / 2
    boxes = torch.cat((centre - half, centre + half), 1).float()
    return Targets(boxes, values[:, 1].long(), values[:, 0].long(), batch)


def loss_case(golden: Mapping[str, np.ndarray], name: str) -> LossCase:
    """The case ``name`` of loss.npz."""
    values = golden[f"{name}.config"].tolist()
    batch, height, width, seed, classes = (int(value) for value in values[:5])
    box, obj, cls, cls_pw, obj_pw, gamma, anchor_t, ratio = values[5:]
    anchors = torch.tensor(ANCHORS_P6 if name.startswith("p6") else ANCHORS_P5, dtype=torch.float32)
    levels = []
    for place, of_level in enumerate(anchors):
        shape = (batch, len(of_level), height // (8 << place), width // (8 << place), classes + 5)
        raw = np.random.RandomState(seed + place).standard_normal(shape).astype(np.float32)
        raw[..., 4] -= 2
        raw[..., 5:] -= 1
        levels.append(torch.from_numpy(raw).requires_grad_())
    config = LossConfig(
        assigner="anchor_ratio", gains="yolor", box=box, obj=obj, cls=cls, cls_pw=cls_pw, obj_pw=obj_pw,
        fl_gamma=gamma, anchor_t=anchor_t, objectness_iou_ratio=ratio,
    )  # fmt: skip
    targets = targets_of(golden[f"{name}.targets"], (height, width), batch)
    return LossCase(tuple(levels), targets, config, (height, width), anchors, classes)
