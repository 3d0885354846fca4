"""What the network makes of some images: original, what it sees, and what it draws."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cloverleaf.data.policy import generator
from cloverleaf.errors import ImageError
from cloverleaf.losses.masked_patches import fill_in
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.data import PURPOSE_MASK, central_crop, draw_visible, read_for_size, to_input, to_picture
from cloverleaf.pretraining.geometry import Cells
from cloverleaf.pretraining.model import MaskedAutoencoder
from cloverleaf.reports.reconstructions import draw_reconstructions

logger = logging.getLogger(__name__)
NAME = "reconstructions.png"


class Reconstructions:
    """Draws the same images with the same masks whenever it is asked.

    Args:
        paths: all images of the run; some are chosen evenly.
        config: the run.
        cells: of its images.
        folder: where the picture goes.
    """

    def __init__(self, paths: Sequence[Path], config: PretrainConfig, cells: Cells, folder: Path) -> None:
        self.paths, self.config, self.cells, self.folder = paths, config, cells, folder
        self._shown: tuple[Tensor, Tensor] | None = None

    def draw(self, model: MaskedAutoencoder, epoch: int) -> None:
        """Write the picture of this epoch over the last one; the mode of ``model`` and its statistics stay."""
        if self._shown is None:
            self._shown = self._choose()
        if not len(self._shown[0]):
            return
        pictures, visible = self._shown
        device = next(model.parameters()).device
        images = to_input(pictures.to(device), self.config.data.normalize)
        training = model.training
        model.eval()
        with torch.no_grad():
            pixels = model(images, visible.to(device)).float()
        model.train(training)
        filled = fill_in(images, pixels, visible.to(device), model.patch_size)
        draw_reconstructions(
            _to_array(pictures), visible[:, 0].numpy(), _to_array(to_picture(filled, self.config.data.normalize).cpu()),
            self.folder / NAME, title=f"epoch {epoch}",
        )  # fmt: skip

    def _choose(self) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) uint8 and (n, 1, f, f)."""
        wanted = min(self.config.pictures, len(self.paths))
        pictures, masks = [], []
        for i in np.linspace(0, len(self.paths) - 1, wanted).round().astype(int).tolist():
            try:
                pixels = read_for_size(self.paths[i], self.config.data.image_size)
            except ImageError as error:
                logger.warning("%s; it is not drawn", error)
                continue
            pictures.append(central_crop(pixels, self.config.data.image_size))
            masks.append(draw_visible(self.cells, generator(self.config.seed, 0, i, PURPOSE_MASK)))
        size, side = self.config.data.image_size, self.cells.side
        if not pictures:
            return torch.zeros(0, 3, size, size, dtype=torch.uint8), torch.zeros(0, 1, side, side, dtype=torch.bool)
        return torch.stack(pictures), torch.stack(masks)


def _to_array(pictures: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return pictures.permute(0, 2, 3, 1).contiguous().numpy()
