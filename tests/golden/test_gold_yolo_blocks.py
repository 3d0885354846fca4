"""The blocks of Gold-YOLO alone, those of the m and l models too, for which there are no whole-model numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep import reparameterize
from cloverleaf.layers.rep_block import BepC3, block
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.spp import SppCspc, Sppf
from cloverleaf.layers.style import Style
from golden.compare import assert_matches
from golden.fill import fill

RELU, SILU = Style(activation="relu"), Style(activation="silu")
REP = {"identity_norm": "rbr_identity", "dense_norm": "rbr_dense.bn", "dense": "rbr_dense.conv",
       "point_norm": "rbr_1x1.bn", "point": "rbr_1x1.conv"}  # fmt: skip
WRAPPED = {"conv": "block.conv", "norm": "block.bn"}
PLAIN = {"norm": "bn"}
SPPF = {"reduce": "cv1", "mix": "cv2"}
CSPC = {"reduce.0": "cv1", "bypass": "cv2", "reduce.1": "cv3", "reduce.2": "cv4", "mix.0": "cv5", "mix.1": "cv6",
        "merge": "cv7"}  # fmt: skip
BEP = {"main": "cv1", "bypass": "cv2", "merge": "cv3", "blocks": "m"}


def bep(repeats: int, expansion: float, kind: str) -> BepC3:
    return BepC3(16, 24, repeats, expansion=expansion, kind=kind)


def cspc(style: Style) -> SppCspc:
    return SppCspc(16, 24, style=style, width=12, bypass_first=True)


BLOCKS: dict[str, nn.Module] = {
    "repvgg_s1": RepConv(16, 16, style=RELU), "repvgg_s1_noid": RepConv(16, 24, style=RELU),
    "repvgg_s2": RepConv(16, 24, 2, style=RELU), "conv_silu": ConvNormAct(16, 24, 3, 2, style=SILU),
    "simconv": ConvNormAct(16, 24, style=RELU), "convwrapper": block("conv", 16, 24),
    "simsppf": Sppf(16, 24, style=RELU), "sppf": Sppf(16, 24, style=SILU),
    "simcspsppf": cspc(RELU), "cspsppf": cspc(SILU),
    "repblock_n4": nn.Sequential(block("rep", 16, 24), *(block("rep", 24, 24) for _ in range(3))),
    "bepc3_n4": bep(4, 2 / 3, "rep"), "bepc3_n7": bep(7, 2 / 3, "rep"), "bepc3_silu_n6": bep(6, 0.5, "conv"),
}  # fmt: skip


def published_name(key: str, ours: str) -> str:
    """Our name in a block with the published parts."""
    prefix = ""
    if key == "repblock_n4":
        index, _, ours = ours.partition(".")
        prefix = "conv1." if index == "0" else f"block.{int(index) - 1}."
    names: dict[str, str] = SPPF if "sppf" in key and "csp" not in key else CSPC if "cspsppf" in key else {}
    if key.startswith("bepc3"):
        names = BEP
    for part, theirs in names.items():
        if ours.startswith(f"{part}."):
            prefix, ours = f"{theirs}.", ours[len(part) + 1 :]
            break
    if prefix == "m.":  # bottlenecks in a row, each of two blocks and a factor
        index, _, ours = ours.partition(".")
        prefix += "conv1." if index == "0" else f"block.{int(index) - 1}."
        half, _, rest = ours.partition(".")
        if half in ("first", "second"):
            prefix, ours = prefix + ("conv1." if half == "first" else "conv2."), rest
    is_rep = any(
        ours.startswith(f"{part}.") for part in ("identity_norm", "dense", "dense_norm", "point", "point_norm")
    )
    inner = (
        REP if is_rep else WRAPPED if key == "convwrapper" or (key.endswith("silu_n6") and "m." in prefix) else PLAIN
    )
    part = next((part for part in inner if ours.startswith(f"{part}.")), "")
    return prefix + (inner[part] + ours[len(part) :] if part else ours)


@pytest.mark.parametrize("key", BLOCKS)
def test_block(key: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    numbers = golden("gold_yolo/modules_blocks")
    module = BLOCKS[key].eval()
    state = {
        ours: value if value.dtype == torch.int64
        else torch.from_numpy(fill(f"blk.{key}.{published_name(key, ours)}", tuple(value.shape), 1.0))
        for ours, value in module.state_dict().items()
    }  # fmt: skip
    module.load_state_dict(state)
    shape = (2, 16, 11, 14)
    x: Tensor = torch.from_numpy(10 * fill("blk.x", (int(np.prod(shape)),), 1.0)).reshape(shape)
    with torch.no_grad():
        assert_matches(module(x), numbers, key)
        folded = reparameterize(nn.Sequential(module))
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        assert_matches(folded(x), numbers, key)
        if key.startswith("repvgg"):
            conv = folded[0].conv
            assert_matches(conv.weight, numbers, f"{key}.fold.weight")
            assert_matches(conv.bias, numbers, f"{key}.fold.bias")
