"""Predictions and targets of the golden assignments and losses of Gold-YOLO, in float64."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.points import cell_middles, distances_to_boxes, expected_distances
from cloverleaf.structures import AidedOutput, DenseOutput, Targets
from golden.fill import fill

STRIDES = (8, 16, 32)
BINS = 17
_RAMP = np.tile(np.arange(BINS, dtype=np.float64), 4)


@dataclass(frozen=True)
class Case:
    """Sizes and targets of the golden batch."""

    batch: int
    size_hw: tuple[int, int]
    classes: int
    targets: Targets

    @property
    def positions(self) -> int:
        return sum((self.size_hw[0] // s) * (self.size_hw[1] // s) for s in STRIDES)

    def logits(self, name: str, shift: float = -2.0, per_cell: int = 1) -> Tensor:
        return noise(name, (self.batch, self.positions * per_cell, self.classes)) + shift

    def bins(self, name: str) -> Tensor:
        return 1.5 * noise(name, (self.batch, self.positions, 4 * BINS)) - 0.35 * torch.from_numpy(_RAMP)

    def plain(self, name: str) -> Tensor:
        return 2 + 0.7 * noise(name, (self.batch, self.positions, 4))

    def aided(self, prefix: str) -> AidedOutput:
        shape = (self.batch, 3 * self.positions, 2)
        centre, size = 0.3 * noise(f"{prefix}.xy", shape), (0.4 * noise(f"{prefix}.wh", shape) + 1.7).exp()
        return AidedOutput(self.logits(f"{prefix}.cls", per_cell=3), torch.cat((centre, size), -1))

    def maps(self, name: str) -> tuple[Tensor, ...]:
        height, width = self.size_hw
        return tuple(noise(f"{name}{i}", (self.batch, 6, height // s, width // s)) for i, s in enumerate(STRIDES))

    def boxes_px(self, distances: Tensor) -> Tensor:
        points, stride = (value.double() for value in cell_middles(STRIDES, self.size_hw))
        return distances_to_boxes(expected_distances(distances), points) * stride

    def aided_px(self, aided: AidedOutput) -> Tensor:
        points, stride = aided_points(self.size_hw)
        return (cxcywh_to_xyxy(aided.boxes_cxcywh) + points.repeat(1, 2)) * stride


def aided_points(size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    points, stride = (value.double() for value in cell_middles(STRIDES, size_hw))
    counts = [(size_hw[0] // s) * (size_hw[1] // s) for s in STRIDES]
    both = torch.cat([part.repeat(3, 1) for part in torch.cat((points, stride), 1).split(counts)])
    return both[:, :2], both[:, 2:]


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal, seeded by the name."""
    return 10 * torch.from_numpy(fill(name, (int(np.prod(shape)),))).double().view(shape)


def load_case(numbers: dict[str, np.ndarray], case: str) -> Case:
    batch, height, width, size, classes = (int(v) for v in numbers["dims"])
    rows = torch.from_numpy(numbers[f"{case}.targets"]).double()
    boxes = rows[:, 2:] * size
    low = boxes[:, :2] - boxes[:, 2:] / 2
    image = rows[:, 0].long()
    targets = Targets(torch.cat((low, low + boxes[:, 2:]), 1), rows[:, 1].long(), image, batch)
    return Case(batch, (height, width), classes, targets)


def raw_of(case: Case, *, prefix: str = "loss0", dfl: bool = True, direct: bool = False) -> DenseOutput:
    distances = case.bins(f"{prefix}.reg") if dfl else case.plain(f"{prefix}.reg")
    return DenseOutput(case.logits(f"{prefix}.cls"), distances, case.plain(f"{prefix}.lrtb") if direct else None, None)
