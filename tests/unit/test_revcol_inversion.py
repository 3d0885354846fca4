"""The image from the last column: columns and wide stems exactly, narrow stems as far as they keep it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec
from cloverleaf.backbones.revcol.column import Column
from cloverleaf.backbones.revcol.inversion import find_stem
from cloverleaf.backbones.revcol.stem_inverse import StemInverse, invert_stem


def build(width: int = 8, **options: Any) -> RevCol:
    torch.manual_seed(0)
    channels = (width, 16, 16, 16)
    model = RevColSpec(channels=channels, layers=(1, 1, 1, 1), **{"columns": 3, **options}).build().double()
    with torch.no_grad():
        for parameter in model.parameters():  # nothing is at its start any more
            parameter += 0.05 * torch.randn_like(parameter)
    return model.eval()


def smooth_images(batch: int = 2) -> Tensor:
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear")


@torch.no_grad()
def from_last_column(model: RevCol, images: Tensor) -> tuple[StemInverse, float]:
    columns = [column for column in model.columns if isinstance(column, Column)]
    found = find_stem(columns, model(images))
    return invert_stem(model.stem, found.stem), found.error


@pytest.mark.parametrize("options", [{}, {"columns": 1}, {"fusion": "attention"}])
def test_wide_stems_give_the_image_back(options: dict[str, Any]) -> None:
    """From the last column alone, in float64."""
    model = build(52, **options)
    inverse, error = from_last_column(model, smooth_images())
    assert error < 1e-11 and inverse.exact
    assert (inverse.image - smooth_images()).abs().max() < 1e-6


def test_narrow_stems_keep_a_part() -> None:
    """What they keep is met exactly, and the rest is such that the image is smooth: better than the mean colour."""
    model, images = build(8, columns=2), smooth_images()
    inverse, _ = from_last_column(model, images)
    assert (inverse.kept, inverse.of, inverse.exact) == (7, 48, False)
    with torch.no_grad():
        assert (model.stem(inverse.image) - model.stem(images)).abs().max() < 1e-6
    error, variance = (inverse.image - images).square().mean(), images.var((2, 3)).mean()
    assert float(error) < 0.25 * float(variance)


def test_other_norms_and_other_precision() -> None:
    model = build(52, block="rep")
    with torch.no_grad():
        for stem in (model.stem, model.stem.reparameterized()):
            assert (invert_stem(stem, stem(smooth_images())).image - smooth_images()).abs().max() < 1e-9
        with pytest.raises(ValueError, match="float64"):
            invert_stem(model.stem, torch.zeros(1, 52, 4, 4))


def test_says_when_it_fails() -> None:
    """Too few passes; and a narrow finest map that another image leads to as well, which the coarser maps show."""
    model = build(8)
    columns = [column for column in model.columns if isinstance(column, Column)]
    with torch.no_grad():
        features = model(smooth_images())
        for passes in (5, 60):
            found = find_stem(columns, features, passes=passes)
            assert found.passes == passes and found.error > 0.1 and bool(found.stem.isfinite().all())
