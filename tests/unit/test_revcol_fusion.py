"""Fusion with weights and with attention: starts as the plain sum, stays reversible, and reads what it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cloverleaf
from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec
from cloverleaf.backbones.revcol.column import Column
from cloverleaf.backbones.revcol.fusions import build_fusion
from cloverleaf.backbones.revcol.inversion import invert_column, invert_columns
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import create_model, find_spec
from golden.fill import fill

SMALL: dict[str, Any] = {"channels": (8, 16, 24, 32), "layers": (1, 1, 2, 1), "columns": 3}
LEARNED = pytest.mark.parametrize("fusion", ["weighted", "attention"])


def build(fusion: str, *, scale: float = 1.0, **options: Any) -> RevCol:
    """Nothing is zero or the same everywhere, so that every path counts."""
    model = RevColSpec(**{**SMALL, "memory": "plain", **options}, fusion=fusion).build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            kind = ".gamma" if "layer_scale" in name or "strengths" in name else ""
            value = torch.from_numpy(fill(name + kind, tuple(parameter.shape)))
            parameter.copy_(value * (scale if ".scales." in name else 1))
    return model


def images(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


@LEARNED
@pytest.mark.parametrize("far_fusion", [False, True])
def test_starts_as_the_plain_sum(fusion: str, far_fusion: bool) -> None:
    """Also where sizes do not divide, and in the first column, which has nothing from the left."""
    plain = RevColSpec(**SMALL, far_fusion=far_fusion).build().eval()
    other = RevColSpec(**SMALL, far_fusion=far_fusion, fusion=fusion).build().eval()
    missing, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert missing and not unexpected and not any(p.isnan().any() for p in other.parameters())
    x = images(100, 76)
    for a, b in zip(plain(x), other(x), strict=True):
        assert torch.equal(a, b)
    learned = build(fusion, far_fusion=far_fusion).eval()
    learned.load_state_dict({name: plain.state_dict()[name] for name in plain.state_dict()}, strict=False)
    assert all((a - b).abs().max() > 0.01 for a, b in zip(plain(x), learned(x), strict=True)), "it decides nothing"


def gradients(model: RevCol, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    loss = sum((torch.from_numpy(fill(f"probe.{k}", tuple(c.shape))).to(c) * c).sum() for k, c in enumerate(model(x)))
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, [x, *parameters.values()])
    return dict(zip(["images", *parameters], found, strict=True))


@LEARNED
@pytest.mark.parametrize("far_fusion", [False, True])
@pytest.mark.parametrize("memory", ["reversible", "anchored"])
def test_reversible_gradients_are_the_plain_ones(fusion: str, far_fusion: bool, memory: str) -> None:
    """In float64; in float32 within 2e-5, or what plain back-propagation itself loses there if that is more."""
    x = images(50, 70)
    anchors = {"anchor_every": 2} if memory == "anchored" else {}
    plain = build(fusion, far_fusion=far_fusion).train()
    model = build(fusion, far_fusion=far_fusion, memory=memory, **anchors).train()
    of_plain, of_model = gradients(plain, x), gradients(model, x)
    exact, of_exact = gradients(plain.double(), x.double()), gradients(model.double(), x.double())
    for name, expected in exact.items():
        assert expected.any(), f"{name} does not learn"
        lost = relative_error(of_plain[name], expected)
        assert relative_error(of_exact[name], expected) < 1e-9, name
        assert relative_error(of_model[name], expected) < max(2e-5, 3 * lost), name


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@LEARNED
def test_gradients_are_numerically_right(fusion: str) -> None:
    """Of every level, as functions of all that it may read and of what decides the weights."""
    generator = torch.Generator().manual_seed(5)
    widths = (2, 3, 2, 2)
    maps = [torch.randn(1, c, 8 >> k, 8 >> k, generator=generator).double().requires_grad_()
            for k, c in enumerate(widths)]  # fmt: skip
    for level in range(4):
        module = build_fusion(fusion, level, widths, first=False, far=False).double()  # type: ignore[arg-type]
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_numpy(fill(name, tuple(parameter.shape))))
        decisive = [p for name, p in module.named_parameters() if "logits" in name or "strengths" in name]

        def merged(stem: Tensor, *others: Tensor, module: Any = module, level: int = level) -> Tensor:
            return module(stem, others[:level], others[level:3])

        stem = torch.randn(1, 2, 8, 8, generator=generator).double().requires_grad_()
        readable = [*maps[:level], *maps[level + 1 :]]
        assert torch.autograd.gradcheck(merged, (stem, *readable), fast_mode=True)
        for parameter in decisive:
            assert torch.autograd.gradcheck(lambda _: merged(stem, *readable), (parameter,), fast_mode=True)  # noqa: B023


@pytest.mark.parametrize("fusion", ["sum", "weighted", "attention"])
@pytest.mark.parametrize(("dtype", "one", "chained"), [(torch.float32, 1e-4, 1e-2), (torch.float64, 1e-12, 1e-11)])
def test_inverse(fusion: str, dtype: torch.dtype, one: float, chained: float) -> None:
    """Scales of about one half, four columns: the errors are those of the plain sum."""
    model = build(fusion, columns=4, scale=0.5).to(dtype).eval()
    columns = [column for column in model.columns if isinstance(column, Column)]
    with torch.no_grad():
        x = images(100, 76).to(dtype)
        stem, features = model.stem(x), model.forward_columns(x, range(3))
        steps = [invert_column(column, stem, own) for column, own in zip(columns[1:], features[1:], strict=True)]
        chain = invert_columns(columns, stem, features[-1])
    for found, limit in ((steps, one), (chain, chained)):
        errors = [(a - b).abs().max() for left, true in zip(found, features, strict=False)
                  for a, b in zip(left, true, strict=True)]  # fmt: skip
        assert len(errors) == 12 and max(errors) < limit, errors
    with pytest.raises(ValueError, match="first column"):
        invert_column(columns[0], stem, features[0])


def test_attention_sees_every_map_that_it_may_and_no_other() -> None:
    """The levels that a level reads, in the published network and with attention."""
    channels = SMALL["channels"]
    for fusion, wanted in (("sum", [(0, 1), (0, 2), (1, 3), (2,)]),
                           ("attention", [(0, 1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)])):  # fmt: skip
        level = build(fusion).columns[1]
        for k in range(4):
            maps = [torch.randn(1, c, 16 >> j, 16 >> j, requires_grad=True) for j, c in enumerate(channels)]
            stem = maps[0] if k == 0 else torch.randn(1, 8, 16, 16)
            level.levels[k](stem, maps[:k], maps[k + 1 :]).sum().backward()  # type: ignore[union-attr, index]
            assert tuple(j for j in range(4) if maps[j].grad is not None) == wanted[k], (fusion, k)


@LEARNED
def test_is_an_option_of_any_composition(fusion: str) -> None:
    spec = find_spec("revcol-pico+fpn+dense").with_overrides({"backbone": {"fusion": fusion}})
    assert type(spec).from_dict(spec.to_dict()) == spec and isinstance(spec.backbone, RevColSpec)
    assert spec.backbone.fusion == fusion
    with pytest.raises(ConfigError, match=r"backbone\.fusion"):
        spec.with_overrides({"backbone": {"fusion": "product"}})


def test_norms_of_every_fusion_are_folded() -> None:
    options = {**SMALL, "block": "rep", "fusion": "attention"}
    model = create_model("revcol-pico+none+dense", num_classes=2, backbone=options).train()
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if "fusion." in name and not parameter.any():
                parameter.copy_(torch.from_numpy(fill(name, tuple(parameter.shape), gain=0.2)))
        model(images())
    fused = model.eval().fused()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    for a, b in zip(model.backbone(images(100, 76)), fused.backbone(images(100, 76)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_detectors_with_it_are_exported(tmp_path: Path) -> None:
    options: dict[str, Any] = {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1), "columns": 2, "fusion": "attention"}
    model = create_model("revcol-pico+none+dense", num_classes=2, backbone=options).eval()
    model.backbone.load_state_dict(build(**options).state_dict())
    assert cloverleaf.export(model, tmp_path / "model.onnx", image_size=96).parity.shapes == ((1, 3, 96, 96),)
