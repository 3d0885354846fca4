"""Backbones that normalise their input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.backbones.timm import TimmSpec

SPECS = [TimmSpec(model="resnet10t"), RevColSpec(channels=(4, 4, 4, 4), layers=(1, 1, 1, 1), columns=2)]


@pytest.mark.parametrize("spec", SPECS, ids=["timm", "revcol"])
def test_the_option_is_the_same_as_normalised_images(spec) -> None:
    plain, normalizing = spec.build().eval(), replace(spec, normalize=True).build().eval()
    assert normalizing.state_dict().keys() == plain.state_dict().keys()
    normalizing.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = plain((images - mean[:, None, None]) / std[:, None, None])
    for ours, theirs in zip(normalizing(images), wanted, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(plain(images)[-1], wanted[-1])
