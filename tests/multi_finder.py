"""A stand-in for a trained model of several tasks: it finds the light rectangle, its colour and the brightness."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.structures import MultiOutput
from square_finder import SquareFinder

LIGHT = 0.72  # least mean brightness of a rectangle that is found


class MultiFinder(SquareFinder):
    """Boxes as `SquareFinder`; tag `red` is on when the image has more red than blue, `dark` when it is dark, and the
    embedding of a cell is its mean colour, from which grey is taken away."""

    task = "multi"

    def __init__(
        self,
        names: tuple[str, ...] = ("square", "ghost"),
        tag_names: tuple[str, ...] = ("red", "dark"),
        *,
        tags: bool = True,
        embeddings: bool = True,
        identities: tuple[int, ...] = (),
    ) -> None:
        super().__init__(names)
        self.spec = SimpleNamespace(fused=True, name="multi-finder", head=None)
        self.metadata: Any = SimpleNamespace(
            class_names=names, category_ids=None, image_size=320, tag_names=tag_names, identities=identities
        )
        self.head = SimpleNamespace(
            tags=SimpleNamespace(linear=nn.Linear(3, 2)) if tags else None,
            embeddings=embeddings or None,
            identities=None,
            strides=self.strides,
        )

    def forward(self, pixels: Tensor) -> MultiOutput:  # type: ignore[override]
        super().forward(pixels)
        mean = pixels.mean((2, 3))
        tags = torch.stack([40 * (mean[:, 0] - mean[:, 2]), 20 * (0.3 - mean.mean(1))], 1)
        maps = tuple(F.avg_pool2d(pixels, stride) - 0.6 for stride in self.strides)
        return MultiOutput(pixels, tags if self.head.tags else None, maps if self.head.embeddings else None)

    def decode(self, raw: Any, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return super().decode(raw.boxes, size_hw)
