"""Implicit knowledge (YOLOR, arXiv 2105.04206): what is learned apart from the input, and folded away afterwards.

A *modelling* makes a constant g of learned numbers, an *operator* combines it with a map, a *placement* says where.

- `ImplicitOptions`: operator and modelling of one place; the name of an operator stands for a vector with it.
- `implicit_module(options, channels)`: an `Implicit`, the module. `x (B, C, H, W)` or `(B, C)` in, `.out_channels` out
  (more than C after a concatenation, the rows of an inner product); `.constant()` is g.
- `maybe_implicit(options, channels)`: the same, or `nn.Identity` where the options are None;
  `width_behind(module, channels)`: the width of what comes out of either.
- `Placements` and `placed("head", task=BEFORE)`: the option `implicit` of a part, as in
  ``implicit: Annotated[Placements | None, placed("head", task=BEFORE)] = None``; `BEFORE` a 1x1 convolution or linear
  layer, `AFTER` a convolution, `FACTOR` and `ADDEND` for some outputs.
- `fold_into_next`, `fold_into_previous`: the algebra, on tensors; `absorbed(layer, before=..., after=[...])`: the
  same for a `Conv2d` or `Linear` and the modules around it.
- `align_block(block, options)`: between norm and activation of a block's last convolution; `fold_alignment(module)`
  folds every such place inside ``module``, in place.
"""

from cloverleaf.layers.implicit.alignment import Aligned, align_block, fold_alignment
from cloverleaf.layers.implicit.folding import absorbed, fold_into_next, fold_into_previous
from cloverleaf.layers.implicit.modellings import (
    START_STD,
    ImplicitFactorisation,
    ImplicitNetwork,
    ImplicitVector,
    implicit_module,
    maybe_implicit,
    width_behind,
)
from cloverleaf.layers.implicit.module import Implicit
from cloverleaf.layers.implicit.options import MODELLINGS, OPERATORS, ImplicitOptions, Modelling, Operator
from cloverleaf.layers.implicit.placements import (
    ADDEND,
    AFTER,
    BEFORE,
    FACTOR,
    NONE,
    RELEASED,
    Place,
    Placements,
    placed,
    placed_or_released,
)

__all__ = [
    "ADDEND",
    "AFTER",
    "BEFORE",
    "FACTOR",
    "MODELLINGS",
    "NONE",
    "OPERATORS",
    "RELEASED",
    "START_STD",
    "Aligned",
    "Implicit",
    "ImplicitFactorisation",
    "ImplicitNetwork",
    "ImplicitOptions",
    "ImplicitVector",
    "Modelling",
    "Operator",
    "Place",
    "Placements",
    "absorbed",
    "align_block",
    "fold_alignment",
    "fold_into_next",
    "fold_into_previous",
    "implicit_module",
    "maybe_implicit",
    "placed",
    "placed_or_released",
    "width_behind",
]
