"""The backbone and the neck of Scaled-YOLOv4 and YOLOR: composition, options, refusals, and what docs/yolor.md says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny_datasets
from cloverleaf.backbones.csp_stages import CspStagesSpec
from cloverleaf.errors import ConfigError
from cloverleaf.layers.csp import CspBlock, ReversedCspBlock
from cloverleaf.layers.style import Style
from cloverleaf.models.catalog import MODELS, create_model
from cloverleaf.models.cost import measure
from cloverleaf.models.yolov4 import P7
from cloverleaf.structures import FeatureSpec
from documented import run_commands, text_from

QUICK = ["--epochs", "1", "--image-size", "64", "--batch-size", "2", "--workers", "0", "--precision", "fp32"]


@pytest.mark.parametrize(
    ("stem", "widths", "stride"), [("conv", (16,), 2), ("residual", (16, 24), 4), ("space-to-depth", (16,), 4)]
)
@pytest.mark.parametrize("finest", [4, 8])
def test_stems_and_strides(stem: Any, widths: tuple[int, ...], stride: int, finest: Any) -> None:
    spec = CspStagesSpec(
        stem=stem, stem_channels=widths, channels=(16, 24, 32), depths=(1, 1, 1), finest=finest, downsample="pooled-csp"
    )
    backbone = spec.build().eval()
    strides = tuple(s for s in (stride, 2 * stride, 4 * stride) if s >= finest)
    assert backbone.features.strides == strides
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert [x.shape[1:] for x in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(backbone.features.channels, strides, strict=True)
    ]


def test_blocks_are_the_published_ones() -> None:
    """Both paths of a backbone's block read the input, those of a neck's block what its first convolution gives."""
    torch.manual_seed(0)
    x, style = torch.rand(1, 8, 4, 4), Style(activation="mish", norm_eps=1e-4)
    block = CspBlock(8, 12, 2, transition=True, style=style).eval()
    main = block.main(x)
    for unit in block.blocks:
        main = main + unit.expand(unit.reduce(main))
    expected = block.merge(torch.cat((block.transition(main), block.bypass(x)), 1))
    torch.testing.assert_close(block(x), expected)
    merge = ReversedCspBlock(8, 12, 2, style=style).eval()
    entered = merge.enter(x)
    main = entered
    for unit in merge.blocks:
        main = unit.expand(unit.reduce(main))
    torch.testing.assert_close(merge(x), merge.merge(torch.cat((main, merge.bypass(entered)), 1)))
    kinds = {type(module) for module in (*block.modules(), *merge.modules())}
    assert nn.Mish in kinds and nn.SiLU not in kinds


@pytest.mark.parametrize(
    "name",
    ["csp-stages+csp-pan+anchor", "csp-stages+gather-distribute+dense", "elan-tiny+csp-pan+dense",
     "revcol-pico+csp-pan+anchor", "csp-stages+none+classify"],
)  # fmt: skip
def test_default_parts_go_with_others(name: str) -> None:
    model = create_model(name, num_classes=3).eval()
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 96))
    if name == "csp-stages+csp-pan+anchor":
        assert 1e6 < measure(model.spec, (320, 320)).params < 3e6


def test_neck_takes_as_many_levels_as_there_are() -> None:
    features = FeatureSpec((16, 16, 24, 32, 40), (8, 16, 32, 64, 128))
    neck = replace(P7.neck, width=0.125, depth=1).build(features)  # type: ignore[type-var]
    maps = neck([torch.rand(1, c, 256 // s, 128 // s) for c, s in zip(*_lists(features), strict=True)])
    assert neck.features.strides == features.strides
    assert [x.shape[1:] for x in maps] == [(c, 256 // s, 128 // s) for c, s in zip(*_lists(neck.features), strict=True)]


def _lists(features: FeatureSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return features.channels, features.strides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "conv"}, "stem_channels = .16, 24. does not fit stem 'conv'"),
        ({"depths": (1, 2)}, "channels has 4 widths and backbone.depths 2 numbers"),
        ({"channels": (32,), "depths": (1,)}, "finest = 8 is the stride of no map.*have 4.*[Gg]ive more stages"),
        ({"stem": "space-to-depth-8", "stem_channels": (), "finest": 4}, "have 8, 16, 32, 64.*finest=8"),
        ({"activation": "misch"}, "activation = 'misch' is not valid"),
        ({"norm_eps": 0}, "norm_eps = 0 is not valid"),
        ({"norm": "none"}, "norm = 'none' is not valid"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("csp-stages+csp-pan+anchor", backbone=changes)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("yolov4-")])
def test_models_without_implicit_knowledge_have_the_bias_prior(name: str) -> None:
    narrow = {"width": 0.05}
    backbone = narrow | {"depths": (1,) * len(MODELS[name].spec.backbone.depths)}  # type: ignore[attr-defined]
    model = create_model(name, backbone=backbone, neck=narrow | {"depth": 1}, head=narrow)
    for level, stride in zip(model.head.levels, model.strides, strict=True):
        objectness = level.project.bias.view(model.anchors_px.shape[1], -1)[:, 4] - math.log(8 / (640 / stride) ** 2)
        assert objectness.abs().max() <= level.project.in_channels**-0.5  # PyTorch's default


@pytest.mark.slow
def test_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_datasets.write_yolo(tmp_path)
    (tmp_path / "data.yaml").rename("my-images.yaml")
    done: list[list[str]] = []

    def narrow(words: list[str]) -> list[str]:
        words = ["my-images.yaml" if word == "my-images" else word for word in words]
        return [*words, *QUICK, "--output", "run"] if words[0] == "train" else words

    run_commands(text_from("yolor.md", "Compositions"), narrow, done.append)
    assert len(done) == 3
