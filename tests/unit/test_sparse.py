"""Sparse encoders against their definition: what is masked is not there."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from cloverleaf.backbones.elan import ElanSpec
from cloverleaf.errors import ConfigError
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.convert import SparseEncoder, sparsify
from cloverleaf.layers.sparse.layers import MaskedOutput
from cloverleaf.models import parts
from cloverleaf.structures import FeatureSpec

DOWNSAMPLINGS = {"space-to-depth": "pooled-csp", "conv": "pooled-conv"}
OURS = [name for name in parts.BACKBONES if name not in ("timm", "revcol")]
BACKBONES = [
    *OURS,
    "revcol-pico",
    "rep/revcol-pico",
    "elan/space-to-depth",
    "timm/resnet18",
    "normalized/timm/resnet18",
    "timm/convnext_atto",
    "timm/regnetx_002",
]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("elan/"):
        stem = name.removeprefix("elan/")
        return ElanSpec(
            stem=stem, stem_channels=(16,), hidden=(8,) * 4, channels=(16, 16, 24, 32), downsample=DOWNSAMPLINGS[stem]
        ).build()  # fmt: skip
    if name.startswith("normalized/"):
        return parts.override(
            "backbone", parts.backbone_spec(name.removeprefix("normalized/")), {"normalize": True}
        ).build()
    if name.startswith("rep/"):
        return parts.override("backbone", parts.backbone_spec(name.removeprefix("rep/")), {"block": "rep"}).build()
    spec = parts.backbone_spec(name)
    if name == "gelan":  # its own halving takes means of neighbours, between positions
        spec = parts.override("backbone", spec, {"downsample": "conv"})
    narrow = {"width": 0.25} if any(field.name == "width" for field in dataclasses.fields(spec)) else {}
    return parts.override("backbone", spec, narrow).build()


def example(patch: int, cells: tuple[int, int] = (2, 3)) -> tuple[Tensor, Tensor, Tensor]:
    """Images, which cells are visible, and the same by pixel."""
    torch.manual_seed(1)
    visible = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 1, 1]], dtype=torch.bool).view(2, 1, *cells)
    images = torch.rand(2, 3, patch * cells[0], patch * cells[1])
    return images, visible, visible.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def outcome(encoder: SparseEncoder, images: Tensor, visible: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Maps, gradients of the parameters and of the images, of one training step."""
    encoder = copy.deepcopy(encoder).train()
    images = images.clone().requires_grad_()
    maps = list(encoder(images, visible))
    torch.manual_seed(2)
    torch.stack([(x * torch.randn_like(x)).sum() for x in maps]).sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert images.grad is not None
    return [x.detach() for x in maps], gradients, images.grad


@pytest.mark.parametrize("name", BACKBONES)
def test_nothing_depends_on_masked_pixels(name: str) -> None:
    plain = build(name)
    patch = plain.features.strides[-1]
    encoder = SparseEncoder(plain, patch)
    images, visible, seen = example(patch)
    maps, gradients, image_gradient = outcome(encoder, images, visible)
    for x, channels, stride in zip(maps, plain.features.channels, plain.features.strides, strict=True):
        assert x.shape == (2, channels, images.shape[2] // stride, images.shape[3] // stride)
        mask = visible.repeat_interleave(patch // stride, 2).repeat_interleave(patch // stride, 3)
        assert not (x * ~mask).any() and x.isfinite().all() and (x * mask).any()
    assert not (image_gradient * ~seen).any() and (image_gradient * seen).any()
    others = torch.where(seen, images, torch.full_like(images, 7.0))
    changed_maps, changed_gradients, _ = outcome(encoder, others, visible)
    assert all(torch.equal(a, b) for a, b in zip(maps, changed_maps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, changed_gradients, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_masks_that_are_left_out_change_nothing(name: str) -> None:
    plain = build(name)
    encoder = SparseEncoder(plain, plain.features.strides[-1])
    images, visible, _ = example(encoder.patch_size)
    maps, gradients, _ = outcome(encoder, images, visible)
    for module in encoder.modules():
        if isinstance(module, MaskedOutput):
            module.masks = True
    all_maps, all_gradients, _ = outcome(encoder, images, visible)
    assert all(torch.equal(a, b) for a, b in zip(maps, all_maps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, all_gradients, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_go_back_into_the_plain_backbone(name: str) -> None:
    plain = build(name)
    before = copy.deepcopy(plain.state_dict())
    encoder = SparseEncoder(plain, plain.features.strides[-1])
    assert list(encoder.backbone.state_dict()) == list(before)
    images, visible, _ = example(encoder.patch_size)
    everything = torch.ones_like(visible)
    encoder.eval()
    for sparse_map, dense_map in zip(encoder(images, everything), plain.eval()(images), strict=True):
        torch.testing.assert_close(sparse_map, dense_map, rtol=1e-4, atol=1e-5)  # all visible: the dense backbone
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)


def submanifold(x: Tensor, active: Tensor, conv: nn.Conv2d) -> Tensor:
    """A sparse convolution by its definition: a sum over active neighbours at every active output position."""
    (stride, _), (pad, _), (kernel, _) = conv.stride, conv.padding, conv.kernel_size
    outputs = active[:, ::stride, ::stride]
    y = x.new_zeros(len(x), conv.out_channels, *outputs.shape[1:])
    for b, i, j in outputs.nonzero().tolist():
        total = x.new_zeros(conv.out_channels)
        for r in range(kernel):
            for s in range(kernel):
                u, v = i * stride + r - pad, j * stride + s - pad
                if 0 <= u < active.shape[1] and 0 <= v < active.shape[2] and active[b, u, v]:
                    total = total + conv.weight[:, :, r, s] @ x[b, :, u, v]
        y[b, :, i, j] = total
    return y


def test_layers_are_submanifold_convolutions_and_norms_over_visible_positions() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 5, 3, 1, 1, bias=False)
    norm = nn.BatchNorm2d(4, eps=1e-3, momentum=0.03)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    net = nn.Sequential(first, norm, nn.SiLU(inplace=True), second).double()
    cells = VisibleCells()
    visible = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.bool).view(1, 1, 2, 3)
    cells.show(visible)
    active = visible[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)
    x = torch.randn(1, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    found = sparsify(net, cells)(x * active[:, None])

    gathered = submanifold(x, active, first).movedim(1, -1)[active[:, ::2, ::2]]  # (n, 4)
    statistics = nn.BatchNorm1d(4, eps=1e-3, momentum=0.03).double()
    statistics.load_state_dict(net[1].state_dict())
    hidden = torch.zeros(1, 4, 6, 4, dtype=torch.float64)
    hidden[0].movedim(0, -1).transpose(0, 1)[active[0, ::2, ::2]] = nn.functional.silu(statistics(gathered))
    expected = submanifold(hidden.transpose(2, 3), active[:, ::2, ::2], second)
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(found.square().sum(), x)
    (defined,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(ours, defined)


class Chain(nn.Sequential):
    """A backbone of one map."""

    def __init__(self, *layers: nn.Module, stride: int = 2) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, 2, 1), *layers)
        self.features = FeatureSpec((4,), (stride,))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (super().forward(x),)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mix(x.mean((2, 3), keepdim=True)).sigmoid()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (SqueezeExcite(), r"layer 1 \(SqueezeExcite\) cannot be made sparse: it mixes the positions"),
        (nn.AdaptiveAvgPool2d(1), r"layer 1 \(AdaptiveAvgPool2d\).*mixes the positions"),
        (nn.GroupNorm(2, 4), r"layer 1 \(GroupNorm\).*masked positions is not zero"),
        (nn.Sigmoid(), r"layer 1 \(Sigmoid\).*masked positions is not zero"),
        (nn.ConvTranspose2d(4, 4, 3, padding=1), r"layer 1 \(ConvTranspose2d\).*not zero"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), r"layer 1 \(Upsample\).*not zero"),
        (nn.Conv2d(4, 4, 3), r"layer 1 \(Conv2d\): a map of 22 x 38 positions does not line up"),
        (nn.Flatten(2), r"layer 1 \(Flatten\).*mixes the positions"),
    ],
)
def test_what_cannot_be_sparse_is_refused_by_name(layer: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        SparseEncoder(Chain(layer), 16)


@pytest.mark.parametrize(
    "layer",
    [nn.Upsample(scale_factor=2), nn.AvgPool2d(3, 1, 1), nn.PixelUnshuffle(2), nn.Dropout2d(), nn.ReLU6(inplace=True)],
)
def test_what_keeps_positions_apart_is_taken(layer: nn.Module) -> None:
    encoder = SparseEncoder(Chain(layer), 16).eval()
    images, visible, _ = example(16)
    [x] = encoder(images, visible)
    assert not x[~nn.functional.interpolate(visible.float(), x.shape[2:]).bool().expand_as(x)].any()


def test_low_precision_and_memory_formats() -> None:
    plain = build("csp-tiny")
    encoder = SparseEncoder(plain, 32)
    images, visible, _ = example(32)
    maps, _, _ = outcome(encoder, images, visible)
    moved = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    for a, b in zip(maps, outcome(moved, images, visible)[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half, gradients, _ = outcome(encoder, images, visible)
    assert all(x.isfinite().all() for x in [*half, *gradients])
