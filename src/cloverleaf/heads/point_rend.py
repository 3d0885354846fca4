"""PointRend for semantic segmentation (arXiv 1912.08193): a coarse head, and a small one that refines single points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.ops.point_sample import most_uncertain, sample_at
from cloverleaf.structures import FeatureSpec, SemanticOutput

Width = Annotated[int, Field(ge=1, le=16384)]

_PIXELS_PER_POINT = 16 * 16  # one point for each cell that a map of stride 16 has, as in the paper
_GROUPS = 32


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PointRendHeadSpec:
    """Options of `PointRendHead`.

    Attributes:
        coarse_width: channels of the coarse head.
        point_layers, point_width: number and width of the hidden layers that refine points.
        subdivision_points: points that are refined in each step of `segment`; None takes as many as a map of stride 16
            has cells.
    """

    task: ClassVar[Literal["semantic"]] = "semantic"
    type: Literal["point-rend"] = "point-rend"
    coarse_width: Width = 128
    point_layers: Annotated[int, Field(ge=1, le=16)] = 3
    point_width: Width = 256
    subdivision_points: Annotated[int, Field(ge=1)] | None = None

    def build(self, features: FeatureSpec, num_classes: int) -> PointRendHead:
        """The module for a neck's ``features``, freshly initialised.

        Raises:
            ConfigError: there is only one class, or the strides do not double from level to level.
        """
        return PointRendHead(self, features, num_classes)

    def deployed(self) -> PointRendHeadSpec:
        """The same: nothing of it is for training only."""
        return self


class PointRendHead(nn.Module):
    """Class logits on the grid of the finest map, and refined ones wherever they are asked for.

    The coarse head is that of semantic feature pyramids (arXiv 1901.02446, section 3): every level goes up to the
    finest stride by 3x3 convolutions with GroupNorm and ReLU, each followed by a doubling of the size; the levels are
    added. The point head is a perceptron shared by all points. It reads the finest map and the coarse logits at the
    point, and every later layer the coarse logits again (section 3.3 of the paper).

    Attributes:
        num_classes: K, with the background where there is one.
        strides: input pixels per cell of each level.
        levels: per level its way up.
        classes: from the sum of the levels to coarse logits.
        point_layers: the hidden layers of the point head, as convolutions over single points.
        point_classes: its last layer.
    """

    def __init__(self, spec: PointRendHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        _check(features.strides, num_classes)
        self.num_classes, self.strides = num_classes, features.strides
        self.subdivision_points = spec.subdivision_points
        self.levels = nn.ModuleList(
            _way_up(channels, spec.coarse_width, stride // features.strides[0])
            for channels, stride in zip(features.channels, features.strides, strict=True)
        )
        self.classes = nn.Conv2d(spec.coarse_width, num_classes, 1)
        inputs = [features.channels[0], *(spec.point_width,) * spec.point_layers]
        self.point_layers = nn.ModuleList(nn.Conv1d(c + num_classes, spec.point_width, 1) for c in inputs[:-1])
        self.point_classes = nn.Conv1d(inputs[-1] + num_classes, num_classes, 1)
        self._initialise()

    def _initialise(self) -> None:
        for layer in self.point_layers:
            assert isinstance(layer, nn.Conv1d) and layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        assert self.point_classes.bias is not None
        nn.init.normal_(self.point_classes.weight, std=0.001)
        nn.init.zeros_(self.point_classes.bias)

    def forward(self, features: Sequence[Tensor]) -> SemanticOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> raw output; further maps (of auxiliary heads) are not read."""
        up = [level(x) for level, x in zip(self.levels, features, strict=False)]
        return SemanticOutput(self.classes(torch.stack(up).sum(0)), features[0])

    def point_logits(self, raw: SemanticOutput, points: Tensor) -> Tensor:
        """Refined class logits ``(B, K, P)`` at ``points`` ``(B, P, 2)``, (x, y) in [0, 1]."""
        coarse = sample_at(raw.coarse, points)
        x = sample_at(raw.fine, points)
        for layer in self.point_layers:
            x = F.relu(layer(torch.cat((x, coarse), 1)))
        return self.point_classes(torch.cat((x, coarse), 1))

    def segment(self, raw: SemanticOutput, size_hw: tuple[int, int]) -> Tensor:
        """Class logits ``(B, K, H, W)``, float32, by subdivision (section 3.1 of the paper).

        Starting from the coarse logits, the size is doubled by bilinear interpolation and the least certain points are
        predicted anew, until the size of the input is reached.

        Args:
            raw: output of `forward`.
            size_hw: network-input size.

        Raises:
            ConfigError: ``raw`` does not come from images of ``size_hw``.
        """
        self.check_size(raw, size_hw)
        points = self.subdivision_points or max(size_hw[0] * size_hw[1] // _PIXELS_PER_POINT, 1)
        logits = raw.coarse.float()
        while tuple(logits.shape[2:]) != tuple(size_hw):
            height, width = min(2 * logits.shape[2], size_hw[0]), min(2 * logits.shape[3], size_hw[1])
            logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            index, where = most_uncertain(logits, points)
            refined = self.point_logits(raw, where).float()
            index = index[:, None].expand(-1, self.num_classes, -1)
            logits = logits.flatten(2).scatter(2, index, refined).unflatten(2, (height, width))
        return logits

    def deploy(self) -> None:
        """Nothing: every part is needed."""

    def check_size(self, raw: SemanticOutput, size_hw: tuple[int, int]) -> None:
        """Raise `ConfigError` unless ``raw`` comes from images of ``size_hw``."""
        found, expected = tuple(raw.coarse.shape[2:]), tuple(side // self.strides[0] for side in size_hw)
        if found != expected:
            raise ConfigError(
                f"raw output does not come from images of size {size_hw}",
                f"its coarse logits have size {found}, expected {expected}",
                "pass the (height, width) of the network input",
            )


def _way_up(channels: int, width: int, ratio: int) -> nn.Sequential:
    """From a map to one ``ratio`` times as large: a convolution per doubling, and one where nothing is to double."""
    steps: list[nn.Module] = []
    for _ in range(max(round(math.log2(ratio)), 1)):
        norm = nn.GroupNorm(math.gcd(_GROUPS, width), width)
        steps += [nn.Conv2d(channels, width, 3, padding=1, bias=False), norm, nn.ReLU()]
        if ratio > 1:
            steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        channels = width
    return nn.Sequential(*steps)


def _check(strides: tuple[int, ...], num_classes: int) -> None:
    if num_classes < 2:
        raise ConfigError(
            f"point-rend cannot tell {num_classes} class apart", "every pixel gets one of the classes",
            "count the background as a class of its own",
        )  # fmt: skip
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise ConfigError(
            f"point-rend cannot add up maps of strides {strides}",
            "coarser maps are doubled in size until they fit the finest",
            "choose a backbone and a neck whose strides double, e.g. 4, 8, 16 and 32",
        )
