"""Any convolutional backbone as a sparse encoder, or a refusal that names the layer which cannot be one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.layers import MaskedOutput, sparse_layer
from cloverleaf.layers.sparse.probe import probe
from cloverleaf.structures import FeatureSpec


class SparseEncoder(nn.Module):
    """A backbone that sees the visible cells only (SparK, arXiv 2301.03580, section 3.2).

    Visible outputs equal those of submanifold sparse convolutions on the visible pixels: convolutions and pools are
    masked, BatchNorm has the statistics of visible positions.

    Args:
        backbone: gives maps finest first and has ``.features``; it is copied, not changed. One that normalises its
            input (``.normalize``, ``.normalised``) does so before cells are hidden, so that these are zero afterwards.
        patch_size: side of a cell in pixels, a multiple of the coarsest stride.

    Attributes:
        backbone: the sparse copy; its state dict has the names and tensors of a plain one.
        cells: the context that its layers share.

    Raises:
        ConfigError: a layer looks beyond the visible positions of its input, or cells do not line up.
    """

    def __init__(self, backbone: nn.Module, patch_size: int) -> None:
        super().__init__()
        self.features: FeatureSpec = backbone.features  # type: ignore[assignment]
        self.patch_size = patch_size
        self.cells = VisibleCells()
        self.backbone = sparsify(backbone, self.cells)
        self.normalizes = bool(getattr(backbone, "normalize", False))
        if self.normalizes:
            self.backbone.normalize = False  # type: ignore[assignment]
        for name in probe(self.backbone, self.cells, patch_size):
            layer = self.backbone.get_submodule(name)
            assert isinstance(layer, MaskedOutput)
            layer.masks = False

    def forward(self, images: Tensor, visible: Tensor) -> Sequence[Tensor]:
        """Encode what is visible.

        Args:
            images: (B, 3, H, W), sides multiples of the patch size.
            visible: (B, 1, H / patch, W / patch) bool.

        Returns:
            The backbone's maps, finest first, zero at masked positions.
        """
        self.cells.show(visible)
        if self.normalizes:
            images = self.backbone.normalised(images)  # type: ignore[operator]
        maps: Sequence[Tensor] = self.backbone(images * self.cells.mask(images.shape[2], images.shape[3], images.dtype))
        return maps


def sparsify(backbone: nn.Module, cells: VisibleCells) -> nn.Module:
    """A copy of ``backbone`` whose convolutions, pools and norms are sparse; names and values are those of before."""
    made = copy.deepcopy(backbone)
    replaced: dict[int, nn.Module] = {}
    for name, layer in list(made.named_modules(remove_duplicate=False)):
        if name and (sparse := replaced.get(id(layer)) or sparse_layer(layer, cells)) is not None:
            replaced[id(layer)] = sparse
            made.set_submodule(name, sparse)
    return made
