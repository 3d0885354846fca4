"""Masked pre-training against numbers computed from the published equations, in float64."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.convert import sparsify
from cloverleaf.layers.spp import Sppf
from cloverleaf.layers.style import Style
from cloverleaf.losses.masked_patches import masked_patch_loss, patch_errors
from cloverleaf.models import parts
from cloverleaf.pretraining.model import IMAGENET_MEAN, IMAGENET_STD, MaskedAutoencoder
from cloverleaf.pretraining.optim import build_lamb
from cloverleaf.pretraining.schedule import PretrainSchedule
from conftest import GOLDEN
from golden.compare import assert_matches, filled_state
from golden.fill import fill, image

Golden = Callable[[str], dict[str, np.ndarray]]
TOLERANCE = 1e-5
STYLE = Style(activation="relu")
REP = {"identity_norm": "rbr_identity", "dense": "rbr_dense.conv", "dense_norm": "rbr_dense.bn",
       "point": "rbr_1x1.conv", "point_norm": "rbr_1x1.bn"}  # fmt: skip
CONV = {"conv": "block.conv", "norm": "block.bn"}
SPPF = {"reduce.conv": "cv1.conv", "reduce.norm": "cv1.bn", "mix.conv": "cv2.conv", "mix.norm": "cv2.bn"}


@pytest.fixture(scope="module")
def units(golden: Golden) -> dict[str, np.ndarray]:
    return golden("gold_yolo/mim_units")


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(10 * fill(name, (int(np.prod(shape)),), 1.0)).double().reshape(shape)


def fill_module(module: nn.Module, prefix: str, names: Mapping[str, str] | None = None) -> nn.Module:
    """Fill every tensor by its published name: our name with the given beginnings replaced."""
    state = {}
    for own, value in module.state_dict().items():
        published = own
        for ours, theirs in (names or {}).items():
            published = re.sub(rf"^{re.escape(ours)}\.", f"{theirs}.", published)
        filled = (
            value if value.dtype == torch.int64 else torch.from_numpy(fill(f"{prefix}.{published}", value.shape, 1))
        )
        state[own] = filled
    module.load_state_dict(state)
    return module.double()


def sparse(module: nn.Module, active: Tensor) -> nn.Module:
    cells = VisibleCells()
    cells.show(active)
    return sparsify(nn.Sequential(module), cells)


def masked_input(units: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
    batch, narrow, _, height, width = units["dims"].tolist()
    active = torch.from_numpy(units["active"])
    mask = active.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return noise("spk.x", (batch, narrow, height, width)) * mask, active


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("conv3s1", nn.Conv2d(6, 10, 3, 1, 1, bias=False)),
        ("conv3s2", nn.Conv2d(6, 10, 3, 2, 1)),
        ("conv1", nn.Conv2d(6, 10, 1)),
        ("maxpool5", nn.MaxPool2d(5, 1, 2)),
    ],
)
def test_operators(units: dict[str, np.ndarray], key: str, layer: nn.Module) -> None:
    x, active = masked_input(units)
    assert_matches(sparse(fill_module(layer, f"spk.{key}"), active)(x), units, key, TOLERANCE)


def test_batchnorm(units: dict[str, np.ndarray]) -> None:
    _, active = masked_input(units)
    dense = 2 * noise("spk.xb", (2, 6, 32, 48)) + 0.7
    norm = sparse(fill_module(nn.BatchNorm2d(6, 1e-3, 0.03), "spk.bn"), active)
    assert_matches(norm.eval()(dense), units, "bn.eval", TOLERANCE)
    assert_matches(norm.train()(dense), units, "bn.train", TOLERANCE)
    for name in ("running_mean", "running_var"):
        assert_matches(getattr(norm[0], name), units, f"bn.{name}_after", TOLERANCE)


@pytest.mark.parametrize(("key", "width", "stride"), [("repvgg", 6, 1), ("repvgg_s2", 10, 2)])
def test_blocks(units: dict[str, np.ndarray], key: str, width: int, stride: int) -> None:
    x, active = masked_input(units)
    block = sparse(fill_module(RepConv(6, width, stride, style=STYLE), f"spk.{key}", REP), active)
    assert_matches(block.eval()(x), units, f"{key}.eval", TOLERANCE)
    assert_matches(block.train()(x), units, f"{key}.train", TOLERANCE)


def test_patch_loss(units: dict[str, np.ndarray]) -> None:
    active = torch.from_numpy(units["active"])
    errors = patch_errors(noise("spk.img", (2, 3, 64, 96)), noise("spk.rec", (2, 3, 64, 96)), 32)
    assert_matches(errors.flatten(1), units, "loss.patch", TOLERANCE)
    assert float(masked_patch_loss(errors, active)) == pytest.approx(float(units["loss"]), rel=TOLERANCE)


def test_schedule(golden: Golden) -> None:
    numbers = golden("gold_yolo/mim_schedule")
    lr, start, end, warmup, total = numbers["hyper"].tolist()
    schedule = PretrainSchedule(lr, start, end, int(warmup), int(total))
    steps = numbers["it"].tolist()
    assert [schedule.lr_at(t) for t in steps] == pytest.approx(numbers["lr"].tolist(), rel=1e-12)
    assert [schedule.weight_decay_at(t) for t in steps] == pytest.approx(numbers["wd"].tolist(), rel=1e-12)


def test_lamb(golden: Golden) -> None:
    """timm's LAMB is the published one: the clipping inside, no trust ratio without decay."""
    numbers = golden("gold_yolo/lamb")
    lr, beta1, beta2, eps, decay, clip = numbers["hyper"].tolist()
    model = nn.Linear(4, 5).double()
    model.weight.data, model.bias.data = torch.from_numpy(numbers["w0"]), torch.from_numpy(numbers["b0"])
    optimizer = build_lamb(model, lr=lr, weight_decay=decay, betas=(beta1, beta2), eps=eps, clip_norm=clip)
    for step in range(1, 7):
        model.weight.grad, model.bias.grad = (torch.from_numpy(numbers[f"g{name}{step}"]) for name in "wb")
        optimizer.step()
        assert_matches(model.weight, numbers, f"w{step}", 1e-12)
        assert_matches(model.bias, numbers, f"b{step}", 1e-12)


@pytest.mark.parametrize(
    ("key", "block", "names"),
    [
        ("convwrapper", ConvNormAct(6, 10, 3, style=Style(), bias=True), CONV),
        ("sppf", Sppf(6, 10, style=Style(), windows=(5, 9, 13)), SPPF),
        ("simsppf", Sppf(6, 10, style=STYLE, windows=(5, 9, 13)), SPPF),
    ],
)
def test_layers(units: dict[str, np.ndarray], key: str, block: nn.Module, names: dict[str, str]) -> None:
    x, active = masked_input(units)
    block = sparse(fill_module(block, f"spk.{key}", names), active)
    assert_matches(block.eval()(x), units, f"{key}.eval", TOLERANCE)
    assert_matches(block.train()(x), units, f"{key}.train", TOLERANCE)


# Published names (SparK's for the decoder, Gold-YOLO's for the backbone) to ours, applied in this order.
NAMES = (
    (r"^sparse_encoder\.sp_cnn\.", "encoder.backbone."),
    (r"ERBlock_(\d)\.", lambda match: f"stage{2 ** int(match[1])}."),
    (r"(stage\d+\.1)\.conv1\.", r"\1.0."),
    (r"(stage\d+\.1)\.block\.(\d+)\.", lambda match: f"{match[1]}.{int(match[2]) + 1}."),
    (r"rbr_(dense|1x1)\.(conv|bn)\.", lambda match: {
        ("dense", "conv"): "dense.", ("dense", "bn"): "dense_norm.", ("1x1", "conv"): "point.",
        ("1x1", "bn"): "point_norm.",
    }[match[1], match[2]]),
    (r"rbr_identity\.", "identity_norm."),
    (r"\.cv(\d)\.", lambda match: {
        "1": ".reduce.0.", "2": ".bypass.", "3": ".reduce.1.", "4": ".reduce.2.", "5": ".mix.0.", "6": ".mix.1.",
        "7": ".merge.",
    }[match[1]]),
    (r"(reduce\.\d|bypass|mix\.\d|merge)\.bn\.", r"\1.norm."),
    (r"^dense_decoder\.dec\.(\d)\.up_sample\.", r"decoder.blocks.\1.up."),
    (r"^dense_decoder\.dec\.(\d)\.conv\.(\d)\.", lambda match: "decoder.blocks.{}.{}.".format(
        match[1], {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}[match[2]]
    )),
    (r"^dense_decoder\.proj\.", "decoder.to_pixels."),
    (r"^densify_norms\.(\d)\.", r"decoder.densify.\1.norm."),
    (r"^densify_projs\.(\d)\.", r"decoder.densify.\1.project."),
    (r"^mask_tokens\.(\d)$", r"decoder.densify.\1.token"),
)  # fmt: skip


def ours(published: str) -> str:
    for pattern, replacement in NAMES:
        published = re.sub(pattern, replacement, published)
    return published


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_whole_model(golden: Golden, mode: str) -> None:
    numbers = golden("gold_yolo/mim_gold_yolo-n_128x128")
    keys = (GOLDEN / "gold_yolo" / "keys" / "mim_gold_yolo-n.txt").read_text()
    state = filled_state(keys, {}, float(numbers["gain"]))
    model = MaskedAutoencoder(parts.backbone_spec("efficient-rep").build(), patch_size=32, width=96)
    model.load_state_dict({ours(name): value for name, value in state.items()}, strict=True)
    model.double().train(mode == "train")
    mean, deviation = (torch.tensor(c).double()[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
    images = (torch.from_numpy(image(128, 128, 2, 0)).double() - mean) / deviation
    active = torch.from_numpy(numbers["active"])

    maps = model.encoder(images, active)
    dense = model.decoder.densified(maps)
    pixels = copy.deepcopy(model)(images, active)
    for i, (sparse_map, dense_map) in enumerate(zip(maps[::-1], dense, strict=True)):
        assert_matches(sparse_map, numbers, f"{mode}.feat{i}", TOLERANCE)
        assert_matches(dense_map, numbers, f"{mode}.dense{i}", TOLERANCE)
    assert_matches(pixels, numbers, f"{mode}.rec", TOLERANCE)
    model.load_state_dict({ours(name): value for name, value in state.items()})
    errors = patch_errors(images, model(images, active), 32)
    assert_matches(errors.flatten(1), numbers, f"{mode}.patch_l2", TOLERANCE)
    loss = masked_patch_loss(errors, active)
    assert float(loss.detach()) == pytest.approx(float(numbers[f"{mode}.loss"]), rel=TOLERANCE)
    loss.backward()
    gradients = [name.removeprefix(f"{mode}.grad.") for name in numbers if name.startswith(f"{mode}.grad.")]
    assert len(gradients) == 4
    for name in gradients:
        assert_matches(model.get_parameter(ours(name)).grad, numbers, f"{mode}.grad.{name}", TOLERANCE)
    if mode == "train":
        own = model.state_dict()
        after = torch.cat([own[ours(name)] for name in state if name.endswith(("running_mean", "running_var"))])
        assert_matches(after, numbers, "train.running_after", TOLERANCE)
