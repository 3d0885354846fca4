"""Implicit knowledge against the published layers: constants, operators and every fold, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.layers.implicit import (
    Implicit,
    ImplicitOptions,
    absorbed,
    fold_into_next,
    fold_into_previous,
    implicit_module,
)

GOLDEN = {
    key: torch.from_numpy(np.asarray(value))
    for key, value in np.load(Path(__file__).parent / "yolor" / "implicit.npz").items()
}
OPERATORS = {"add": "add", "mul": "multiply", "cat": "concatenate", "cat_full": "concatenate", "select": "gate"}
MODELLINGS: Mapping[str, dict[str, Any]] = {
    "vector": {},
    "nn_linear": {"modelling": "network", "prior": 5},
    "nn_silu": {"modelling": "network", "prior": 5, "activation": "silu"},
    "mf": {"modelling": "factorisation", "atoms": 4},
    "mf_sparse": {"modelling": "factorisation", "atoms": 4},
    "nmf": {"modelling": "factorisation", "atoms": 4, "non_negative": True},
}
# Published names of parameters -> ours.
NAMES = {
    "vector": {"z": "value"},
    "network": {"z": "prior", "W": "weight", "b": "bias"},
    "factorisation": {"Z": "basis", "c": "coefficients", "b": "bias"},
}


def close(ours: Tensor, golden: Tensor) -> None:
    torch.testing.assert_close(ours, golden, rtol=0, atol=1e-10)


def module_of(case: str) -> Implicit:
    """The module of a case with its parameters."""
    modelling, operator = case.split(".")
    values: dict[str, Any] = {"operator": OPERATORS.get(operator, operator), **MODELLINGS[modelling]}
    if operator == "cat":
        values["length"] = 4
    if operator == "inner":
        values["rows"] = 3
    if f"{case}.lam" in GOLDEN:
        values["sparsity"] = float(GOLDEN[f"{case}.lam"])
    module = implicit_module(ImplicitOptions(**values), channels=6).double()
    names = NAMES["vector" if operator == "inner" else module.modelling]
    names = {"Z": "value"} if operator == "inner" else names
    own = dict(module.named_parameters())
    given = {ours: GOLDEN[f"{case}.{theirs}"] for theirs, ours in names.items() if f"{case}.{theirs}" in GOLDEN}
    assert set(given) == set(own), "every parameter has its published one"
    for name, value in given.items():
        own[name].data.copy_(value.reshape(own[name].shape))
    return module


def conv1x1(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, weight[:, :, None, None], bias)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("modelling", MODELLINGS)
@torch.no_grad()
def test_constants_operators_and_folds(modelling: str, operator: str) -> None:
    case = f"{modelling}.{operator}"
    own = {key.removeprefix(f"{case}."): value for key, value in GOLDEN.items() if key.startswith(f"{case}.")}
    u, x, module = GOLDEN["u"], GOLDEN["x"], module_of(case)
    close(conv1x1(GOLDEN["prev.W"], GOLDEN["prev.b"], u), x)
    g = module.constant()
    close(g, own["g"])
    if "c_sparse" in own:
        close(module.effective_coefficients(), own["c_sparse"])
    y = module(x)
    close(y, own["y"])
    weight, bias = own["next.W"], own["next.b"]
    close(conv1x1(weight, bias, y), own["out"])
    folded = fold_into_next(module.operator, g, weight, bias)
    close(folded[0], own["fold_next.W"])
    close(folded[1], own["fold_next.b"])
    close(conv1x1(*folded, x), own["out"])

    out3 = nn.functional.conv2d(y, own["next3.W"], bias, padding=1)
    close(out3, own["out3"])
    folded3 = fold_into_next(module.operator, g, own["next3.W"], bias)
    close(folded3[0], own["fold_next3.W"])
    close(folded3[1], own["fold_next3.b"])
    wrong = (nn.functional.conv2d(x, *folded3, padding=1) - out3).abs()
    assert wrong[..., 1:-1, 1:-1].max() < 1e-10
    close(wrong.max(), own["fold_next3.border_err"].reshape(()))
    assert (wrong.max() > 1e-3) == (operator in ("add", "cat", "cat_full")), "padding holds no constant"

    if operator.startswith("cat"):
        with pytest.raises(ValueError, match="concatenation cannot"):
            fold_into_previous(module.operator, g, GOLDEN["prev.W"], GOLDEN["prev.b"])
    else:
        before = fold_into_previous(module.operator, g, GOLDEN["prev.W"], GOLDEN["prev.b"])
        close(before[0], own["fold_prev.W"])
        close(before[1], own["fold_prev.b"])
        close(conv1x1(*before, u), y)


@torch.no_grad()
def test_inner_product() -> None:
    own, x, module = (
        {k: v for k, v in GOLDEN.items() if k.startswith("vector.inner")},
        GOLDEN["x"],
        module_of("vector.inner"),
    )
    y = module(x)
    close(y, own["vector.inner.y"])
    weight, bias = own["vector.inner.next.W"], own["vector.inner.next.b"]
    close(conv1x1(weight, bias, y), own["vector.inner.out"])
    folded = fold_into_next("inner", module.constant(), weight, bias)
    close(folded[0], own["vector.inner.fold_next.W"])
    close(folded[1], own["vector.inner.fold_next.b"])
    before = fold_into_previous("inner", module.constant(), GOLDEN["prev.W"], GOLDEN["prev.b"])
    close(conv1x1(*before, GOLDEN["u"]), y)


def _vector(operator: Any, value: Tensor) -> Implicit:
    module = implicit_module(ImplicitOptions(operator=operator), len(value)).double()
    module.value.data.copy_(value.reshape(1, -1, 1, 1))
    return module


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1).double()
    conv.weight.data.copy_(weight[:, :, None, None])
    conv.bias.data.copy_(bias)
    return conv


@torch.no_grad()
def test_head_and_tasks() -> None:
    add, multiply = _vector("add", GOLDEN["head.ia"]), _vector("multiply", GOLDEN["head.im"])
    conv = _conv(GOLDEN["head.W"], GOLDEN["head.b"])
    close(multiply(conv(add(GOLDEN["x"]))), GOLDEN["head.out"])
    folded = absorbed(conv, before=add, after=[multiply])
    close(folded.weight[:, :, 0, 0], GOLDEN["head.fold.W"])
    close(folded.bias, GOLDEN["head.fold.b"])
    close(folded(GOLDEN["x"]), GOLDEN["head.out"])
    for task in ("task0", "task1", "task2"):
        own = _vector("add", GOLDEN[f"{task}.z"])
        conv = _conv(GOLDEN[f"{task}.W"], GOLDEN[f"{task}.b"])
        close(conv(own(GOLDEN["x"])), GOLDEN[f"{task}.out"])
        folded = absorbed(conv, before=own)
        close(folded.bias, GOLDEN[f"{task}.fold.b"])
        close(folded(GOLDEN["x"]), GOLDEN[f"{task}.out"])
