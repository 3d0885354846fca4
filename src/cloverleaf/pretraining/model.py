"""Encoder and decoder of masked pre-training as one module."""

from __future__ import annotations

from torch import Tensor, nn

from cloverleaf.layers.sparse.convert import SparseEncoder
from cloverleaf.pretraining.decoder import LightDecoder

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MaskedAutoencoder(nn.Module):
    """Sees some cells of an image and draws the others.

    Args:
        backbone: any convolutional one; copied. Its trained weights are ``encoder.backbone``'s, under plain names.
        patch_size: side of a cell in pixels.
        width: of the decoder; 0 takes that of the backbone's coarsest map.
        norm: kind of the decoder's norms.

    Raises:
        ConfigError: the backbone has a layer that cannot be sparse, or strides that do not double.
    """

    def __init__(
        self, backbone: nn.Module, *, patch_size: int, width: int = 0, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.encoder = SparseEncoder(backbone, patch_size)
        self.decoder = LightDecoder(self.encoder.features, width, self.encoder.cells, norm=norm)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct.

        Args:
            images: (B, 3, H, W), sides multiples of the patch size.
            visible: (B, 1, H / patch, W / patch) bool.

        Returns:
            (B, 3, H, W) in the units of normalised patches; see `losses.masked_patches`.
        """
        pixels: Tensor = self.decoder(self.encoder(images, visible))
        return pixels
