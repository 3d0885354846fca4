"""Small decoders from a map to the image, fitted in a moment: how much of the image the map still tells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cloverleaf.heads.reconstruction import DecoderStage, FullDecoder

_WIDTHS = (64, 48, 32, 24, 16, 16)  # of the decoder's stages, from the coarsest on
_BATCH, _RATE, _LAST = 16, 3e-3, 0.02
_LAYER_SCALE = 0.1


@dataclass(frozen=True, slots=True)
class Examples:
    """A map of some images, and the images.

    Attributes:
        maps: (n, C, h, w).
        images: (n, 3, H, W) in [0, 1].
    """

    maps: Tensor
    images: Tensor


def fit(examples: Examples, stride: int, steps: int, seed: int) -> FittedDecoder:
    """A decoder of one coarsest map, of the same form whatever backbone the map comes from.

    Adam on squared errors of pixels, the learning rate falling to zero along a cosine. The map's channels are brought
    to mean 0 and deviation 1 over the examples first, so that no backbone has an advantage by its scale.

    Args:
        examples: to learn from.
        stride: of the map, a power of two from 4 to 128.
        steps: of Adam.
        seed: of weights and order.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = examples.maps.mean((0, 2, 3), keepdim=True), examples.maps.std((0, 2, 3), keepdim=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages = stride.bit_length() - 3  # from the stride of the map down to 4
        decoder = FullDecoder((*_WIDTHS[:stages][::-1], examples.maps.shape[1]), 4)
        _quicken(decoder, examples.images.mean((0, 2, 3)))
    decoder.to(examples.maps.device)
    fitted = FittedDecoder(decoder, mean, deviation.clamp(min=1e-6))
    optimizer = torch.optim.Adam(decoder.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=_LAST * _RATE)
    for _ in range(steps):
        chosen = torch.randint(len(examples.maps), (min(_BATCH, len(examples.maps)),), generator=generator)
        loss = F.mse_loss(fitted.logits(examples.maps[chosen]).sigmoid(), examples.images[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return fitted


def _quicken(decoder: FullDecoder, colour: Tensor) -> None:
    """Start from the mean colour and with weights that pass on as much as comes in: there are few steps to learn."""
    for stage in decoder.stages:
        assert isinstance(stage, DecoderStage)
        torch.nn.init.kaiming_normal_(stage.project.weight, nonlinearity="linear")
        torch.nn.init.constant_(stage.block.layer_scale, _LAYER_SCALE)
    with torch.no_grad():
        decoder.to_pixels.bias.copy_(colour.logit(1e-3).repeat_interleave(decoder.stride**2))  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class FittedDecoder:
    """A decoder and the numbers that normalise its input.

    Attributes:
        decoder: to logits.
        mean, deviation: (1, C, 1, 1).
    """

    decoder: FullDecoder
    mean: Tensor
    deviation: Tensor

    def logits(self, maps: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, 3, H, W)."""
        side = 2 ** len(self.decoder.stages) * self.decoder.stride
        size_hw = (maps.shape[2] * side, maps.shape[3] * side)
        logits: Tensor = self.decoder((maps - self.mean) / self.deviation, size_hw)
        return logits

    @torch.no_grad()
    def images(self, maps: Tensor) -> Tensor:
        """(n, C, h, w) -> (n, 3, H, W) in [0, 1]."""
        return self.logits(maps).sigmoid()
