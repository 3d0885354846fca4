"""RevCol's features and gradients against the golden numbers, for every way of keeping activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec
from golden.fill import fill, image
from golden.revcol_cases import HUGE, SMALL, filled_backbone, published_names

GOLDEN = Path(__file__).parent / "revcol"
CASES: dict[str, tuple[dict[str, Any], float, tuple[int, int, int]]] = {  # options, factor of the scales, (H, W, batch)
    "small_config_64x64": (SMALL, 1.0, (64, 64, 2)),
    "small_config_alpha05_32x64": (SMALL, 0.5, (32, 64, 1)),
    "huge_config_32x64": (HUGE, 1.0, (32, 64, 1)),
    "backbone_seg_100x76": (SMALL, 1.0, (100, 76, 1)),
    "backbone_tiny_128x96": ({}, 1.0, (128, 96, 1)),
}
WITH_GRADIENTS = [case for case in CASES if case != "backbone_tiny_128x96"]


def golden(case: str) -> dict[str, NDArray[Any]]:
    return dict(np.load(GOLDEN / f"{case}.npz"))


def build(case: str, memory: Any = "plain") -> RevCol:
    options, scale, _ = CASES[case]
    return filled_backbone(RevColSpec(**options, memory=memory), scale)


def images(case: str) -> Tensor:
    height, width, batch = CASES[case][2]
    rounded = [side + -side % 8 for side in (height, width)]
    return torch.from_numpy(image(*rounded, batch, 0))[..., :height, :width].contiguous()


def probe_loss(features: tuple[Tensor, ...]) -> Tensor:
    probes = [torch.from_numpy(fill(f"probe.c{k}", tuple(c.shape), gain=1.0)).to(c) for k, c in enumerate(features)]
    return torch.stack([(probe * c).sum() for probe, c in zip(probes, features, strict=True)]).sum()


@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
@pytest.mark.parametrize("case", CASES)
def test_features(case: str, training: bool) -> None:
    """Also while training, where gradients are kept and convolutions computed differently."""
    numbers, model = golden(case), build(case, "reversible").train(training)
    columns = model.forward_columns(images(case), range(len(model.columns) - 1))
    compared = 0
    for n, features in enumerate(columns):
        for k, found in enumerate(features):
            if f"col{n}.c{k}.value" in numbers:
                name = f"col{n}.c{k}"
                expected = numbers[f"{name}.value"]
                values = found.detach().numpy().ravel()[numbers[f"{name}.index"]]
                assert tuple(found.shape) == tuple(numbers[f"{name}.shape"])
                assert np.abs(values - expected).max() <= 1e-5 * np.abs(expected).max(), name
                compared += 1
    assert compared >= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("memory", ["plain", "reversible", "anchored"])
@pytest.mark.parametrize("case", WITH_GRADIENTS)
def test_gradients(case: str, memory: str, dtype: torch.dtype) -> None:
    """Of every parameter, against plain back-propagation of the published implementation in float64."""
    numbers, model = golden(case), build(case, memory).train().to(dtype)
    loss = probe_loss(model(images(case).to(dtype)))
    loss.backward()
    np.testing.assert_allclose(loss.item(), numbers["loss"], rtol=1e-5 if dtype == torch.float32 else 1e-8)
    ours = {theirs: name for name, theirs in published_names(RevColSpec(**CASES[case][0])).items()}
    parameters, worst, compared = dict(model.named_parameters()), 0.0, 0
    for p, name in enumerate(map(str, numbers["grad.names"])):
        if name not in ours:  # the head, which is not used, and scales of the first column, which have no effect
            assert name.startswith(("cls.", "subnet0.alpha")), name
            continue
        at = slice(*numbers["grad.offset"][p : p + 2])
        gradient = parameters[ours[name]].grad
        assert gradient is not None, name
        error = np.abs(gradient.numpy().ravel()[numbers["grad.index"][at]] - numbers["grad.value"][at]).max()
        worst, compared = max(worst, error / numbers["grad.absmax"][p]), compared + 1
    assert compared == len(parameters)
    assert worst <= (3e-5 if dtype == torch.float32 else 1e-6)


def test_scales_are_kept_from_zero() -> None:
    """The published code overwrites small scales; here they act as if overwritten, and keep what they are."""
    numbers, model = golden("alpha_clamp"), build("small_config_64x64")
    before, after = (torch.from_numpy(numbers[f"alpha_{when}"]).reshape(1, -1, 1, 1) for when in ("before", "after"))
    columns: list[Any] = list(model.columns)
    with torch.no_grad():
        columns[1].scales[0].copy_(before)
        effective = columns[1].effective_scales()
        assert torch.equal(columns[1].scales[0], before)
        moved = before != 0
        assert torch.equal(effective[0][moved], after[moved])
        assert effective[0][~moved] > 0  # stays zero in the published code, whose inverse divides by it
        stem = model.stem(torch.from_numpy(image(64, 64, 1, 0)))
        features = columns[1].run(stem, columns[0](stem, ()), [after, *effective[1:]])
        for column in columns[2:]:
            features = column(stem, features)
    for k, found in enumerate(features):
        expected = numbers[f"col3.c{k}.value"]
        values = found.numpy().ravel()[numbers[f"col3.c{k}.index"]]
        assert np.abs(values - expected).max() <= 1e-5 * np.abs(expected).max()
