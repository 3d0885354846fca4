"""Detectors in the style of YOLOv5, v7, v8 and v9: any backbone below their necks, a finer level, parts by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cloverleaf import create_model
from cloverleaf.errors import ConfigError, UnknownModelError
from cloverleaf.layers.downsample import SplitDown
from cloverleaf.layers.style import Style
from cloverleaf.losses.config import LossConfig
from cloverleaf.models import parts
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.cost import measure
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.yolo_styles import VARIANTS
from cloverleaf.recipes.catalog import choose_recipe
from cloverleaf.recipes.resolve import resolve
from cloverleaf.structures import FeatureSpec
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import parse_assignments, update
from cloverleaf.training.tasks import chosen_spec
from toy_shapes import toy_shapes

NECKS = ("c3-pan", "c2f-pan", "gelan-pan", "elan-pan")
FOUR = FeatureSpec(channels=(9, 18, 34, 68), strides=(4, 8, 16, 32))
REVCOL = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "columns": 2}


def maps(size: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = zip(FOUR.channels, FOUR.strides, strict=True)
    return [torch.randn(1, c, size // s, 2 * size // s, generator=generator) for c, s in pairs]


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("finest", [8, 4])
def test_every_level_hears_of_every_other(neck: str, finest: int) -> None:
    torch.manual_seed(0)
    module = parts.NECKS[neck](finest=finest).build(FOUR).eval()
    count = len(module.features)
    assert module.features.strides == (4, 8, 16, 32)[-count:] and count == (4 if finest == 4 else 3)
    before = module(maps())
    assert [tuple(x.shape[1:]) for x in before[:count]] == [
        (c, 64 // s, 128 // s) for c, s in zip(module.features.channels, module.features.strides, strict=True)
    ]
    for changed in range(4 - count, 4):
        given = maps()
        given[changed] += 1
        assert all(not torch.equal(a, b) for a, b in zip(before[:count], module(given)[:count], strict=True))
    given = [torch.full_like(x, 7.0) for x in maps()[: 4 - count]] + maps()[4 - count :]
    assert all(torch.equal(a, b) for a, b in zip(before, module(given), strict=True)), "a finer map is read"


@pytest.mark.parametrize("neck", [*NECKS, "rep-pan"])
def test_what_a_neck_cannot_do_is_refused(neck: str) -> None:
    spec = parts.NECKS[neck]
    with pytest.raises(ConfigError, match=r"neck\.finest = 4 .*stride 8"):
        spec(finest=4).build(FOUR.since(8))
    with pytest.raises(ConfigError, match="2 widths"):
        spec(channels=(8, 16)).build(FOUR)
    with pytest.raises(ConfigError, match="strides double"):
        spec().build(FeatureSpec(channels=(8, 8), strides=(8, 32)))


def test_split_down_sampling() -> None:
    torch.manual_seed(0)
    down, x = SplitDown(6, 8, style=Style()).eval(), torch.randn(2, 6, 10, 8)
    mean = F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)[..., :-1, :-1]
    assert down(x).shape == (2, 8, 5, 4)
    assert torch.equal(down(x)[:, :4], down.stride(mean[:, :3]))
    assert torch.equal(down(x)[:, 4:], down.pooled(F.max_pool2d(mean[:, 3:], 3, 2, 1)))


# Published parameters in millions and GFLOPs at 640 px; ours have other stems, heads and, for v9, widths.
PUBLISHED = {"yolov5n": (1.9, 4.5), "yolov8n": (3.2, 8.7), "yolov9t": (2.0, 7.7)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_near_the_published_ones_and_those_with_revcol(name: str) -> None:
    own, revcol = (measure(find_spec(one).as_fused(), (640, 640)) for one in (name, f"{name}-revcol"))
    assert own.params / 1e6 == pytest.approx(PUBLISHED[name][0], rel=0.25)
    assert own.flops / 1e9 == pytest.approx(PUBLISHED[name][1], rel=0.15)
    assert 0.88 < revcol.flops / own.flops <= 1


@pytest.mark.parametrize(("size", "millions"), [("pico", 1.0), ("nano", 2.5), ("lite", 7.0), ("medium", 20.0)])
@pytest.mark.parametrize("form", ["", "-rep"])
def test_sizes_of_revcol_for_detectors(size: str, millions: float, form: str) -> None:
    spec = find_spec(f"revcol-{size}{form}+none+classify")
    heads = sum(p.numel() for p in empty_detector(spec).head.parameters())
    for one in (spec, spec.as_fused()):
        assert (measure(one, (64, 64)).params - heads) / 1e6 == pytest.approx(millions, rel=0.15)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("-p2")])
def test_forms_with_a_finer_level_learn(name: str) -> None:
    torch.manual_seed(0)
    width = {"width": 0.25, **({"depth": 1} if "yolov9t" in name else {})}
    model = create_model(name, num_classes=3, backbone=REVCOL, neck=width).train()
    assert model.strides == (4, 8, 16, 32)
    if model.has_anchors:
        assert torch.equal(model.anchors_px[0] * 2, model.anchors_px[1])
    else:
        assert model.head.reg_max == 15, "16 bins, as published"
    images, targets = toy_shapes(2, 64)
    loss = build_criterion(model, LossConfig(), image_size=64)(model(images), targets, (64, 64)).total
    loss.backward()
    assert torch.isfinite(loss)
    finest = [p.grad for p in model.head.levels[0].parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in finest) and any(g.any() for g in finest)


@pytest.mark.parametrize(
    ("backbone", "kind", "channels"),
    [
        ("csp-tiny", "csp-tiny", (128, 256, 512)),
        ("timm/resnet10t", "timm", (64, 128, 256, 512)),
        ({"type": "revcol-nano", "columns": 1, "memory": "plain"}, "revcol", None),
        ({"type": "elan-tiny", "width": 0.25, "finest": 4}, "elan-tiny", (16, 32, 64, 128)),
    ],
)
def test_another_backbone_by_name(backbone: Any, kind: str, channels: tuple[int, ...] | None) -> None:
    model = create_model("yolov8n-revcol", num_classes=2, backbone=backbone)
    channels = channels or parts.PRESETS["backbone"]["revcol-nano"].channels
    assert model.spec.backbone.type == kind
    assert isinstance(model.backbone.features, FeatureSpec) and model.backbone.features.channels == channels
    assert type(model.spec).from_dict(model.spec.to_dict()) == model.spec
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 64, 32)).logits.shape == (1, 8 * 4 + 4 * 2 + 2, 2)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"backbone": "revcol-nan"}, UnknownModelError, "revcol-nano"),
        ({"backbone": {"type": "timm/resnet10"}}, UnknownModelError, "resnet10t"),
        ({"backbone": {"type": "csp-tiny", "columns": 4}}, ConfigError, "no option 'columns'"),
        ({"neck": {"type": "c3-pan", "finest": 16}}, ConfigError, r"neck\.finest"),
        ({"neck": {"finest": 4}}, ConfigError, "3 widths"),
        ({"head": "c2f-pan"}, UnknownModelError, "no head"),
        ({"head": 5}, ConfigError, "by its name"),
    ],
)
def test_wrong_parts(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        create_model("yolov8n-revcol", **options)


def test_parts_by_name_in_configurations() -> None:
    def read(*assignments: str, base: TrainConfig | None = None) -> TrainConfig:
        return update(base or TrainConfig(), parse_assignments(assignments))

    named = read("model.name=yolov8n-revcol", "model.backbone=revcol-nano", "model.backbone.memory=plain")
    assert named.model.backbone == {"type": "revcol-nano", "memory": "plain"}
    assert chosen_spec(named.model).backbone == parts.override(
        "backbone", parts.named("backbone", "revcol-nano"), {"memory": "plain"}
    )
    assert read("model.backbone.columns=2", base=named).model.backbone["type"] == "revcol-nano"
    assert read("model.backbone=timm/resnet10t", base=named).model.backbone == {"type": "timm/resnet10t"}
    wide = read("model.backbone.width=2")
    for order in (("type=revcol-pico", "memory=plain"), ("memory=plain", "type=revcol-pico")):
        over = read(*(f"model.backbone.{value}" for value in order), base=wide)
        assert over.model.backbone == {"type": "revcol-pico", "memory": "plain"}, "nothing of the other part is left"
    with pytest.raises(ConfigError, match="by its name"):
        read("model.backbone=5")
    config, _ = resolve({"model": {"name": "yolov8n-revcol", "neck": "fpn", "head": "mask-rcnn"}})
    assert config.task == "instance"


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("yolov5n", "yolov7-tiny"), ("yolov7-tiny-revcol-p2", "yolov7-tiny"), ("yolov9t-revcol", "anchor-free")],
)
def test_recipes(name: str, recipe: str) -> None:
    assert choose_recipe(name, 118_000)[0] == recipe and choose_recipe(name, 300)[0] == "small"
    assert choose_recipe(name, 118_000, spec=find_spec("yolov8n"))[0] == "anchor-free"


def test_blocks_follow_their_descriptions() -> None:
    """Convolutions on the longest path and in all, of the smallest backbones."""
    kinds = {name: create_model(name).backbone for name in PUBLISHED}
    convolutions = {name: sum(isinstance(m, nn.Conv2d) for m in model.modules()) for name, model in kinds.items()}
    # Stem and transitions; C3 and C2f blocks of 1, 2, 3, 1 and 1, 2, 2, 1 bottlenecks; GELANs of two blocks of three.
    assert convolutions["yolov5n"] == 5 + 4 * 3 + 2 * (1 + 2 + 3 + 1)
    assert convolutions["yolov8n"] == 5 + 4 * 2 + 2 * (1 + 2 + 2 + 1)
    assert convolutions["yolov9t"] == 2 + 3 * 2 + 4 * (2 + 2 * (1 + 3 + 3 * 3))
