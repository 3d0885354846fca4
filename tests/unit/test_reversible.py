"""Reversible training equals plain back-propagation, whatever else happens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cloverleaf import create_model
from cloverleaf.backbones.revcol.backbone import RevCol, RevColSpec, safe_distance
from cloverleaf.errors import ConfigError
from cloverleaf.layers.patches import PatchConv2d
from cloverleaf.layers.perceptron import scaled_perceptron

TINY: dict[str, Any] = {"channels": (4, 6, 8, 10), "layers": (1, 1, 2, 1), "columns": 4}
SAVING = ["reversible", "anchored"]


def build(memory: Any, dtype: torch.dtype = torch.float64, **options: Any) -> RevCol:
    """The same weights for every ``memory``; blocks do more than at the start, where they are nearly the identity."""
    torch.manual_seed(0)
    model = RevColSpec(**{**TINY, **options}, memory=memory).build()
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.3, 0.8)
        elif parameter.ndim > 1 and "scales" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).train()


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)).to(dtype)


def loss_of(features: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([(c.sin() * (k + 1)).sum() for k, c in enumerate(features)]).sum()


def gradients(model: RevCol, run: Callable[[RevCol], None] | None = None) -> dict[str, Tensor]:
    torch.manual_seed(7)
    if run is None:
        loss_of(model(images(next(model.parameters()).dtype))).backward()
    else:
        run(model)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max().clamp(min=1e-2), name


@pytest.mark.parametrize("memory", SAVING)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"columns": 1},
        {"far_fusion": True},
        {"block": "rep"},
        {"drop_path": 0.5},
        {"kernel_size": 5},
        {"columns": 7, "fusion": "weighted"},
        {"columns": 7, "fusion": "attention"},
    ],
    ids=str,
)
def test_equals_plain(memory: str, options: dict[str, Any]) -> None:
    """Same seed, same drop path; and the generator goes on from the same state."""
    expected = gradients(build("plain", **options))
    after = torch.rand(1)
    assert_close(gradients(build(memory, **options)), expected)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("memory", SAVING)
def test_float32_keeps_within_bounds(memory: str) -> None:
    """At 16 columns and fresh scales of 0.5 the distance is chosen so that gradients stay within 1e-4."""
    options = {"columns": 16, "channels": (8, 16, 24, 32)}
    model = build(memory, torch.float32, **options)
    assert_close(gradients(model), gradients(build("plain", torch.float32, **options)), 1e-4)
    assert model.anchor_distance() == 3 == safe_distance(0.5)


def test_too_far_anchors_are_told() -> None:
    model = build("anchored", torch.float32, columns=16, anchor_every=16)
    gradients(model)
    with pytest.warns(UserWarning, match="anchor_every=null"):
        model(images(torch.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images(torch.float32))  # once is enough


def test_rounding_of_autocast_is_no_fault_of_the_distance() -> None:
    """A distance chosen by the scales is safe in bfloat16, too; a warning never advises what is set already."""

    def step(model: RevCol) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss_of(model(images(torch.float32))).backward()

    options = {"columns": 8, "channels": (8, 16, 24, 32)}
    automatic = build("anchored", torch.float32, **options)
    step(automatic)
    assert float(automatic._error) > 1e-3  # were it float32, that would be far too much
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(automatic)
    by_hand = build("anchored", torch.float32, **options, anchor_every=8)
    step(by_hand)
    with pytest.warns(UserWarning, match="anchor_every=null"):
        step(by_hand)
    automatic._error.fill_(1)
    with pytest.warns(UserWarning, match="memory=reversible"):
        step(automatic)


def _frozen_stem(model: RevCol) -> None:
    model.stem.requires_grad_(False)
    loss_of(model(images())).backward()


def _frozen_levels(model: RevCol) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("depthwise" not in name and "columns.1" not in name)
    loss_of(model(images())).backward()


def _accumulated(model: RevCol) -> None:
    for _ in range(2):
        loss_of(model(images())).backward()


def _one_map(model: RevCol) -> None:
    model(images())[0].square().sum().backward()


def _supervised_columns(model: RevCol) -> None:
    torch.stack([loss_of(c) * (n + 1) for n, c in enumerate(model.forward_columns(images(), (0, 2)))]).sum().backward()


def _strided_gradient(model: RevCol) -> None:
    features = model(images())
    torch.autograd.backward(
        features, [torch.ones_like(c.transpose(2, 3)).transpose(2, 3) * c.detach() for c in features]
    )


def _expanded_gradient(model: RevCol) -> None:
    torch.stack([c.sum() for c in model(images())]).sum().backward()


def _retained(model: RevCol) -> None:
    loss = loss_of(model(images()))
    loss.backward(retain_graph=True)
    loss.backward()


def _inside_checkpoint(model: RevCol) -> None:
    loss_of(checkpoint(model, images().requires_grad_(), use_reentrant=False)).backward()


def _asked_for(model: RevCol) -> None:
    names, parameters = zip(*model.named_parameters(), strict=True)
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss_of(model(images())), parameters), strict=True):
        parameter.grad = gradient
    assert len(names) == len(parameters)


def _asked_for_one(model: RevCol) -> None:
    parameter = model.get_parameter("columns.1.levels.2.blocks.0.layer_scale")
    (parameter.grad,) = torch.autograd.grad(loss_of(model(images())), [parameter])


RUNS = [
    _frozen_stem, _frozen_levels, _accumulated, _one_map, _supervised_columns, _strided_gradient, _expanded_gradient,
    _retained, _inside_checkpoint, _asked_for, _asked_for_one,
]  # fmt: skip


@pytest.mark.parametrize("memory", SAVING)
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__.strip("_"))
def test_equals_plain_however_it_is_run(memory: str, run: Callable[[RevCol], None]) -> None:
    assert_close(gradients(build(memory), run), gradients(build("plain"), run))


@pytest.mark.parametrize("memory", SAVING)
def test_autocast(memory: str) -> None:
    """Features stay float32; what is computed again is computed in the same type, inside or outside of autocast."""

    def run(model: RevCol) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            features = model(images(torch.float32))
        assert {c.dtype for c in features} == {torch.float32}
        loss_of(features).backward()

    found = gradients(build(memory, torch.float32), run)
    expected = gradients(build("plain", torch.float32), run)
    full = gradients(build("plain", torch.float32))
    rounding = {name: (expected[name] - full[name]).norm() / full[name].norm() for name in full}
    assert max(rounding.values()) > 1e-3  # it was computed in bfloat16
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 0.05 * gradient.norm(), name


@pytest.mark.parametrize("memory", SAVING)
def test_batch_norm_counts_once(memory: str) -> None:
    """Statistics after a step are those of plain training, and the step's gradients, too."""
    plain, saving = build("plain", block="rep"), build(memory, block="rep")
    assert_close(gradients(saving), gradients(plain))
    norms = [(a, b) for a, b in zip(plain.buffers(), saving.buffers(), strict=True) if a.ndim < 2]
    assert len(norms) > 100
    for expected, found in norms:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory", SAVING)
def test_gradients_of_gradients_are_refused(memory: str) -> None:
    model = build(memory)
    parameter = model.get_parameter("columns.0.levels.0.blocks.0.layer_scale")
    (gradient,) = torch.autograd.grad(loss_of(model(images())), [parameter], create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("memory", SAVING)
def test_changed_parameters_are_noticed(memory: str) -> None:
    """As with plain back-propagation: what is computed again would not be what was computed."""
    model = build(memory)
    loss = loss_of(model(images()))
    with torch.no_grad():
        model.get_parameter("columns.2.levels.1.blocks.0.layer_scale").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def saved_bytes(model: RevCol) -> int:
    known = {value.untyped_storage().data_ptr() for value in model.parameters()}
    found: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in known:
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        features = model(images(torch.float32))
        total = sum(found.values())
    del features
    return total


def test_what_is_kept() -> None:
    """A column costs its four maps, or nothing between anchors; plain training keeps what is inside, too."""
    boundary = 4 * 2 * sum(c * (64 >> s) * (96 >> s) for c, s in zip(TINY["channels"], (2, 3, 4, 5), strict=True))

    def per_column(memory: str, **options: Any) -> float:
        few, many = (saved_bytes(build(memory, torch.float32, columns=n, **options)) for n in (4, 12))
        return (many - few) / 8 / boundary

    scales = 0.02  # the scales that act are computed from the parameters, and kept
    assert per_column("reversible") == pytest.approx(1, abs=scales)
    assert per_column("anchored", anchor_every=4) == pytest.approx(1 / 4, abs=scales)
    assert per_column("plain") > 5


def test_evaluation_keeps_nothing() -> None:
    model = build("reversible").eval()
    trained = build("reversible")
    for (name, found), expected in zip(enumerate(model(images())), trained(images()), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, msg=str(name))


@pytest.mark.parametrize("size_hw", [(64, 64), (33, 47), (100, 76)])
def test_any_size(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    maps = build("reversible", torch.float32)(torch.rand(1, 3, height, width))
    assert [tuple(c.shape[2:]) for c in maps] == [(height >> s, width >> s) for s in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"columns": 0}, "columns = 0 is not valid"),
        ({"block": "rep", "drop_path": 0.1}, "drop_path = 0.1 does not fit block = rep"),
        ({"block": "rep", "kernel_size": 7}, "kernel_size = 7 does not fit block = rep"),
        ({"anchor_every": 2}, "anchor_every = 2 has no effect"),
        ({"columns": 1, "fusion": "weighted"}, "fusion = weighted has no effect"),
        ({"columns": 1, "far_fusion": True}, "far_fusion = True has no effect"),
        ({"memory": "none"}, "memory = 'none' is not valid"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create_model("revcol-pico+none+classify", backbone=options)


def test_image_size_that_levels_cannot_divide() -> None:
    model = create_model("revcol-pico+none+classify")
    with pytest.raises(ConfigError, match=r"image size \(64, 72\) does not fit.*Use \(height, width\) \(64, 64\) or"):
        model(torch.rand(1, 3, 64, 72))


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_images_that_the_backbone_cannot_read(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"cannot read images of shape .* 32 pixels or more"):
        build("plain", torch.float32)(torch.rand(shape))


def test_rep_blocks_fold() -> None:
    model = build("reversible", torch.float32, block="rep")
    with torch.no_grad():
        for _ in range(3):
            model(images(torch.float32))
    detector = create_model("revcol-pico+none+classify", backbone={"block": "rep"}).eval()
    fused = detector.fused()
    assert not [m for m in fused.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fused(x).logits, detector(x).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", SAVING)
def test_distributed_data_parallel(memory: str, tmp_path: Path) -> None:
    """Every parameter is reduced once, when its gradient is there; two backward passes in a row, too."""

    def run(model: RevCol) -> None:
        wrapped = DistributedDataParallel(model)
        for _ in range(2):
            loss_of(wrapped(images())).backward()

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        found = gradients(build(memory), run)
    finally:
        dist.destroy_process_group()
    assert_close(found, gradients(build("plain"), _accumulated))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("memory", SAVING)
@pytest.mark.parametrize("options", [{"drop_path": 0.5}, {"block": "rep"}, {"fusion": "attention"}], ids=str)
def test_on_a_gpu(memory: str, options: dict[str, Any]) -> None:
    """Drop path is drawn by the GPU's generator there."""

    def run(model: RevCol) -> None:
        torch.cuda.manual_seed(3)
        loss_of(model.cuda()(images().cuda())).backward()
        torch.rand(1, device="cuda")

    expected = gradients(build("plain", **options), run)
    after = torch.rand(1, device="cuda")
    assert_close(gradients(build(memory, **options), run), expected)
    assert torch.equal(torch.rand(1, device="cuda"), after)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    yield request.param


def test_scaled_perceptron(dtype: torch.dtype) -> None:
    """Value and gradients of the plain expression, over more rows than one chunk."""
    torch.manual_seed(0)
    x = torch.randn(3, 700, 12, dtype=dtype, requires_grad=True)
    shapes = ((48, 12), (48,), (12, 48), (12,), (12,))
    w1, b1, w2, b2, scale = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    inputs = (x, w1, b1, w2, b2, scale)
    found = scaled_perceptron(x, (w1, b1), (w2, b2), scale)
    expected = (nn.functional.gelu(x @ w1.T + b1) @ w2.T + b2) * scale
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    upper = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, inputs, upper), torch.autograd.grad(expected, inputs, upper), strict=True
    ):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize(("size", "size_hw"), [(2, (8, 10)), (2, (9, 11)), (4, (19, 16))])
def test_patch_convolution(size: int, size_hw: tuple[int, int]) -> None:
    conv = PatchConv2d(5, 7, size).double()
    x = torch.randn(2, 5, *size_hw, dtype=torch.float64)
    torch.testing.assert_close(conv.train()(x), conv.eval()(x), rtol=1e-12, atol=1e-12)
