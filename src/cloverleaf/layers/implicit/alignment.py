"""Implicit knowledge between the normalisation and the activation of a block's last convolution.

There, and only there, an addition behind a block folds exactly whatever reads the block: into the normalisation, and
with it into the convolution (arXiv 2105.04206, equation 10). Behind the activation it would have to be folded into all
that follow, among them convolutions with padding, where it cannot be.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.elan import Elan
from cloverleaf.layers.implicit.folding import absorbed, fold_into_previous
from cloverleaf.layers.implicit.modellings import implicit_module
from cloverleaf.layers.implicit.module import Implicit
from cloverleaf.layers.implicit.options import ImplicitOptions
from cloverleaf.layers.rep import fold_norm
from cloverleaf.layers.rep_conv import RepConv


class Aligned(nn.Module):
    """act(implicit(x)), in the place of a block's activation."""

    def __init__(self, implicit: Implicit, act: nn.Module) -> None:
        super().__init__()
        self.implicit = implicit
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return self.act(self.implicit(x))


@runtime_checkable
class EndsInMerge(Protocol):
    """A block whose last module is called `merge`, as in all cross-stage partial blocks."""

    merge: nn.Module


def last_convolution(block: nn.Module) -> ConvNormAct | RepConv | None:
    """The convolution with norm and activation that gives the output of ``block``; None where none does so alone."""
    match block:
        case ConvNormAct() | RepConv():
            return block
        case Elan():
            return last_convolution(block.transition)
        case nn.Sequential() if len(block):
            return last_convolution(block[-1])
        case EndsInMerge():
            return last_convolution(block.merge)
    return None


def align_block(block: nn.Module, options: ImplicitOptions, *, nth: int = 0) -> bool:
    """Put implicit knowledge between norm and activation of the last convolution of ``block``, which is changed.

    Behind a bare convolution, where a sequence ends in one. ``nth`` as in `implicit_module`.

    Returns:
        False where the block does not end in one such convolution; nothing is changed then.
    """
    conv = last_convolution(block)
    if conv is None and isinstance(block, nn.Sequential) and len(block) and isinstance(block[-1], nn.Conv2d):
        block.append(implicit_module(options, block[-1].out_channels, nth=nth))
        return True
    if conv is None:
        return False
    norm = conv.norm if isinstance(conv, ConvNormAct) else conv.dense_norm
    conv.act = Aligned(implicit_module(options, norm.num_features, nth=nth), conv.act)
    return True


@torch.no_grad()
def fold_alignment(model: nn.Module) -> None:
    """Fold away, in place, what `align_block` put anywhere in ``model``, and what ends a sequence after a convolution.

    It goes into normalisation layers where there are some, otherwise into convolutions; outputs stay equal in
    evaluation mode.
    """
    for module in list(model.modules()):
        if isinstance(module, ConvNormAct | RepConv) and isinstance(module.act, Aligned):
            _fold(module, module.act.implicit)
            module.act = module.act.act
        elif isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[-1], Implicit):
            module[-2] = absorbed(cast(nn.Conv2d, module[-2]), after=[module[-1]])
            del module[-1]


def _fold(conv: ConvNormAct | RepConv, implicit: Implicit) -> None:
    if implicit.operator == "inner":
        _mix(conv, implicit.constant())
        return
    norms = [conv.norm] if isinstance(conv, ConvNormAct) else [conv.dense_norm, conv.point_norm, conv.identity_norm]
    present = [norm for norm in norms if norm is not None]
    for norm in present[: 1 if implicit.operator == "add" else None]:  # an addend counts once, a factor in every branch
        weight, bias = fold_into_previous(implicit.operator, implicit.constant(), norm.weight, norm.bias)
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)


def _mix(conv: ConvNormAct | RepConv, matrix: Tensor) -> None:
    """Multiply what comes out of the norms by ``matrix``: they are folded into the convolutions and left neutral."""
    if isinstance(conv, ConvNormAct):
        folded = fold_norm(conv.conv.weight, conv.conv.bias, conv.norm)
        weight, bias = fold_into_previous("inner", matrix, *folded)
        conv.conv.weight.copy_(weight)
        if conv.conv.bias is not None:
            conv.conv.bias.zero_()
        _neutralise(conv.norm, bias)
        return
    dense, dense_bias = fold_norm(conv.dense.weight, None, conv.dense_norm)
    point, point_bias = fold_norm(conv.point.weight, None, conv.point_norm)
    if conv.identity_norm is not None:
        same = torch.zeros_like(point)
        nn.init.dirac_(same)
        same, same_bias = fold_norm(same, None, conv.identity_norm)
        point, point_bias = point + same, point_bias + same_bias
        conv.identity_norm.weight.zero_()
        conv.identity_norm.bias.zero_()
    for branch, norm, weight, bias in (
        (conv.dense, conv.dense_norm, dense, dense_bias), (conv.point, conv.point_norm, point, point_bias)
    ):  # fmt: skip
        mixed, mixed_bias = fold_into_previous("inner", matrix, weight, bias)
        branch.weight.copy_(mixed)
        _neutralise(norm, mixed_bias)


def _neutralise(norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Make it add ``bias`` and nothing else."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)
