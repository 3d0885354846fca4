"""Folding, pyramid pooling, the ELAN family, the head's prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cloverleaf.errors import ConfigError
from cloverleaf.heads.anchor_based import TINY_ANCHORS, AnchorHead, AnchorHeadSpec
from cloverleaf.heads.anchor_decode import decode_anchors
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.elan import Elan, ElanForm
from cloverleaf.layers.rep import conv_like, fold_norm
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.spp import PyramidPool
from cloverleaf.layers.style import Style, scale_width
from cloverleaf.structures import FeatureSpec


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_fold_norm(groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, 3, 2, 1, groups=groups, bias=bias).double()
    norm = Style().norm(12).double().eval()
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        assert tensor is not None
        tensor.data.normal_()
    assert norm.running_var is not None
    norm.running_var.uniform_(1e-4, 2)  # small variances show a wrong epsilon
    folded = conv_like(conv, *fold_norm(conv.weight, conv.bias, norm))
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(folded(x), norm(conv(x)), rtol=1e-10, atol=1e-10)


def test_style_is_that_of_the_published_models() -> None:
    block = ConvNormAct(4, 6, 3, style=Style(activation="leaky_relu"))
    assert (block.norm.eps, block.norm.momentum) == (1e-3, 0.03)
    assert block.conv.bias is None and block.act(torch.tensor(-1.0)).item() == pytest.approx(-0.1)
    assert isinstance(ConvNormAct(4, 6, style=Style()).act, nn.SiLU)


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(64, 1.0, 64), (64, 0.25, 16), (100, 1.0, 104), (3, 0.1, 8), (128, 1.1, 144)]
)
def test_scale_width_rounds_up_to_eight(channels: int, width: float, expected: int) -> None:
    assert scale_width(channels, width) == expected


def test_pyramid_pool_equals_separate_windows() -> None:
    x = torch.randn(2, 3, 11, 17)
    separate = [nn.functional.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)]
    assert torch.equal(PyramidPool((5, 9, 13))(x), torch.cat((*separate, x), 1))
    with pytest.raises(ValueError, match="odd"):
        PyramidPool((5, 8))


def test_elan_forms_are_the_published_orders() -> None:
    # 0: shortcut, 1: base, 2 ...: chain; latest first.
    assert ElanForm.every(2).taken == (3, 2, 1, 0)
    assert ElanForm.every_second(4).taken == (5, 3, 1, 0)
    assert ElanForm.every_second(8).taken == (9, 7, 5, 3, 1, 0)
    block = Elan(8, 16, 24, form=ElanForm.every(4), chain_width=8, style=Style())
    assert block.transition.conv.in_channels == 2 * 16 + 4 * 8  # "ELAN-W"
    assert block(torch.randn(1, 8, 5, 6)).shape == (1, 24, 5, 6)


@pytest.mark.parametrize("num_classes", [1, 20])
def test_bias_prior_is_added_to_the_default_bias(num_classes: int) -> None:
    features = FeatureSpec((64, 64, 64), (8, 16, 32))
    head = AnchorHead(AnchorHeadSpec(stem="none"), features, num_classes)
    for level, stride in zip(head.levels, (8, 16, 32), strict=True):
        bias = level.project.bias.detach().view(3, -1)
        assert (bias[:, :4].abs() <= 1 / 8).all() and bias[:, :4].abs().sum() > 0  # +- 1 / sqrt(fan-in)
        torch.testing.assert_close(bias[:, 4], torch.full((3,), math.log(8 * stride**2 / 640**2)), rtol=0, atol=0.126)
        classes = torch.full((3, num_classes), math.log(0.6 / (num_classes - 0.99)))
        torch.testing.assert_close(bias[:, 5:], classes, rtol=0, atol=0.126)


def test_decode_of_one_cell_by_hand() -> None:
    raw = torch.zeros(1, 1, 3, 4, 7)  # sigmoid 0.5: the centre of its cell, the anchor's size
    raw[0, 0, 2, 1, 4:] = torch.tensor([0.0, 20.0, -20.0])
    boxes, scores = decode_anchors([raw], torch.tensor([[[10.0, 6.0]]]), (8,))
    index = 2 * 4 + 1
    assert boxes[0, index].tolist() == [12 - 5, 20 - 3, 12 + 5, 20 + 3]
    torch.testing.assert_close(scores[0, index], torch.tensor([0.5, 0.0]))


def test_wrong_anchors_are_refused() -> None:
    features = FeatureSpec((8, 8, 8), (8, 16, 32))
    for anchors, match in (
        (TINY_ANCHORS[:2], "3 equally long sets"),
        (TINY_ANCHORS[::-1], "smallest"),
    ):
        with pytest.raises(ConfigError, match=match):
            AnchorHead(AnchorHeadSpec(anchors_px=anchors), features, 3)
    head = AnchorHead(AnchorHeadSpec(), features, 3)
    with pytest.raises(ConfigError, match="expected shape"):
        head.set_anchors(torch.ones(3, 2, 2))
    head.set_anchors(head.anchors_px * 2)
    assert head.anchors_px[0, 0].tolist() == [20, 26]


def test_gradients_of_a_strided_rep_conv_on_images_in_channels_last() -> None:
    """The library's own 1x1 convolution of stride 2 over 3 channels crashes the process here."""
    torch.manual_seed(0)
    block = RepConv(3, 16, 2, style=Style())
    images = torch.rand(16, 3, 64, 64)
    expected = torch.nn.functional.conv2d(images, block.point.weight, stride=2)
    torch.testing.assert_close(block._pointwise(images), expected)
    block.to(memory_format=torch.channels_last)
    for _ in range(5):
        block(images.contiguous(memory_format=torch.channels_last)).mean().backward()
    assert block.point.weight.grad is not None and block.point.weight.grad.isfinite().all()
