"""Gather and distribute: any backbone and size, switches, what reaches where, and the same numbers when exported."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.models import parts
from cloverleaf.models.catalog import create_model
from cloverleaf.necks.gather_distribute.inject import Inject
from cloverleaf.necks.gather_distribute.neck import GatherDistribute, GatherDistributeSpec
from cloverleaf.ops.resize import bilinear_to, pool_to
from cloverleaf.structures import FeatureSpec

SMALL = {"depth": 1, "low_depth": 1, "drop_path": 0.0}
FOUR = FeatureSpec(channels=(8, 16, 24, 32), strides=(4, 8, 16, 32))


def randomised(module: nn.Module) -> nn.Module:
    """Nothing is zero or one any more, so that every path counts."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 1 or not parameter.any():
            parameter.data.uniform_(0.3, 0.8, generator=generator)
    return module


def build(features: FeatureSpec = FOUR, **options: Any) -> GatherDistribute:
    torch.manual_seed(0)
    return randomised(GatherDistributeSpec(**{**SMALL, **options}).build(features)).eval()  # type: ignore[return-value]


def maps(features: FeatureSpec, height: int, width: int, batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(batch, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(features.channels, features.strides, strict=True)
    ]


@pytest.mark.parametrize("backbone", ["elan-tiny", "csp-tiny", "efficient-rep", "csp-bep", "timm/resnet50"])
@pytest.mark.parametrize("finest", [4, 8])
def test_any_backbone_and_odd_sizes(backbone: str, finest: int) -> None:
    """The maps of 197 x 139 pixels do not divide each other."""
    torch.manual_seed(0)
    spec = parts.backbone_spec(backbone)
    options = {} if backbone.startswith("timm/") else {"width": 0.125}
    if backbone in ("elan-tiny", "csp-tiny"):
        options["finest"] = finest
    body = parts.override("backbone", spec, options).build().eval()
    features = maps(body.features, 197, 139)
    neck = build(body.features, finest=finest, width=0.25)
    assert neck.features.strides == (4, 8, 16, 32)[finest // 8 :]
    with torch.no_grad():
        outputs = neck(features)
    assert [tuple(x.shape) for x in outputs] == [
        (1, c, -(-197 // s), -(-139 // s)) for c, s in zip(neck.features.channels, neck.features.strides, strict=True)
    ]


def reaches(neck: GatherDistribute) -> list[list[bool]]:
    """For every output, which inputs change it."""
    inputs = [x.requires_grad_() for x in maps(FOUR, 96, 64)]
    outputs = neck(inputs)
    gradients = [torch.autograd.grad(x.sum(), inputs, retain_graph=True, allow_unused=True) for x in outputs]
    return [[g is not None and bool(g.any()) for g in of_output] for of_output in gradients]


T, N = True, False


@pytest.mark.parametrize(
    ("low", "high", "laf", "expected"),
    [
        (T, T, T, [[T, T, T, T]] * 3),
        (T, N, N, [[T, T, T, T], [T, T, T, T], [N, N, N, T]]),  # what the coarsest level learns, it learns later
        (N, T, N, [[N, T, N, N], [N, T, T, T], [N, T, T, T]]),  # the finest output is what the low stage gave
        (N, N, N, [[N, T, N, N], [N, N, T, N], [N, N, N, T]]),  # no exchange at all
        (N, N, T, [[T, T, T, T]] * 3),  # from neighbour to neighbour, as in a PAN
    ],
)
def test_switches(low: bool, high: bool, laf: bool, expected: list[list[bool]]) -> None:
    neck = build(low=low, high=high, laf=laf)
    assert reaches(neck) == expected
    neck.train()
    sum(x.square().sum() for x in neck(maps(FOUR, 96, 64, 2))).backward()
    idle = [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_without_a_finer_map_the_neck_gathers_from_what_there_is() -> None:
    three = FOUR.since(8)
    neck = build(three)
    assert [tuple(x.shape[1:]) for x in neck(maps(three, 96, 64))] == [(8, 12, 8), (16, 6, 4), (16, 3, 2)]
    assert build(FOUR).features == neck.features


@pytest.mark.parametrize("before", [(7, 9), (10, 16), (5, 5), (12, 8)])
@pytest.mark.parametrize("after", [(3, 4), (5, 4), (5, 5), (1, 1)])
def test_pooling_is_adaptive_average_pooling_in_every_form(before: tuple[int, int], after: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *before)
    expected = F.adaptive_avg_pool2d(x, after)
    torch.testing.assert_close(pool_to(x, after), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of the comparisons of sizes, which are meant to be constants
        traced = torch.jit.trace(lambda y: pool_to(y, after), x)
    torch.testing.assert_close(traced(x), expected)


@pytest.mark.parametrize(("local", "shared"), [((6, 8), (3, 4)), ((3, 4), (3, 4)), ((7, 3), (5, 4)), ((4, 6), (5, 3))])
def test_injection(local: tuple[int, int], shared: tuple[int, int]) -> None:
    """Enlarged maps are gated, smaller ones are not; the height decides alone."""
    torch.manual_seed(0)
    inject = randomised(Inject(5, 7, 6)).eval()
    x, g = torch.randn(2, 5, *local), 3 * torch.randn(2, 7, *shared)
    gate, embedded = inject.global_act(g), inject.global_embedding(g)
    if local[0] < shared[0]:
        expected = inject.local_embedding(x) * F.adaptive_avg_pool2d(gate, local) + F.adaptive_avg_pool2d(
            embedded, local
        )
    else:
        resize = {"size": local, "mode": "bilinear", "align_corners": False}
        gate = ((gate + 3).clamp(min=0, max=6)) / 6
        expected = inject.local_embedding(x) * F.interpolate(gate, **resize) + F.interpolate(embedded, **resize)
    torch.testing.assert_close(inject(x, g), expected)
    assert bilinear_to(x, local) is x


@pytest.mark.parametrize(
    ("spec", "features", "message"),
    [
        (GatherDistributeSpec(), FeatureSpec((8, 16), (16, 32)), r"three or more strides .* got strides \(16, 32\)"),
        (GatherDistributeSpec(low_channels=(8,)), FOUR, r"neck\.low_channels has 1 widths: each stage has 2 levels"),
        (GatherDistributeSpec(high_channels=(8, 8, 8)), FOUR, r"neck\.high_channels has 3 widths"),
    ],
)  # fmt: skip
def test_a_backbone_that_does_not_fit(spec: GatherDistributeSpec, features: FeatureSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec.build(features)


def test_too_few_levels_by_name() -> None:
    with pytest.raises(ConfigError, match="neck 'gather-distribute' does not fit its backbone"):
        create_model("elan+gather-distribute+dense", backbone={"channels": (64, 64), "hidden": (32, 32)})


class Neck(nn.Module):
    """The neck with its inputs as arguments, as exporters want it."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = build()

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        return self.neck([a, b, c, d])


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At a size whose maps do not divide each other: 5 x 3 cells are pooled to 3 x 2."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("neck") / "neck.onnx"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Neck().eval(), tuple(maps(FOUR, 160, 96)), path, dynamo=True, verbose=False, external_data=False,
            input_names=list("abcd"),
        )  # fmt: skip
    return path


def assert_same(outputs: Any) -> None:
    with torch.no_grad():
        expected = Neck().eval()(*maps(FOUR, 160, 96))
    for ours, theirs in zip(expected, outputs, strict=True):
        torch.testing.assert_close(torch.as_tensor(theirs), ours, rtol=1e-4, atol=1e-4)


def test_onnx(onnx_file: Path) -> None:
    session = pytest.importorskip("onnxruntime").InferenceSession(onnx_file)
    assert_same(session.run(None, dict(zip("abcd", (x.numpy() for x in maps(FOUR, 160, 96)), strict=True))))


def test_openvino(onnx_file: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(onnx_file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model([x.numpy() for x in maps(FOUR, 160, 96)])
    assert_same([found[output] for output in model.outputs])


def test_torchscript() -> None:
    inputs = tuple(maps(FOUR, 160, 96))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Neck().eval(), inputs)
        assert_same(traced(*inputs))
