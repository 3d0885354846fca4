"""UPerNet: pooled to the right grids, one image is enough, and the auxiliary head goes without a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.heads.uper_net import UperNetHeadSpec
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.segmentation_config import PixelLossConfig, SemanticLossConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.structures import FeatureSpec, PixelOutput, Targets
from cloverleaf.training.input_size import check_training_size
from cloverleaf.training.recalibrate import recompute_statistics
from toy_shapes import toy_shapes

FOUR = FeatureSpec((8, 12, 16, 20), (4, 8, 16, 32))
DEFAULT = PixelLossConfig()
NARROW = UperNetHeadSpec(width=16, auxiliary_width=8)


def maps_of(*sizes: tuple[int, int], images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    channels = FOUR.channels[-len(sizes) :]
    return [torch.randn(images, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def narrow_model(**head: Any) -> Any:
    torch.manual_seed(0)
    backbone = {"columns": 2, "channels": (8, 16, 16, 16)}
    options = {"width": 16, "auxiliary_width": 8, **head}
    return create_model("revcol-pico+none+uper-net", num_classes=3, backbone=backbone, head=options)


def semantic_targets(labels: Tensor) -> Targets:
    none = torch.zeros(0, dtype=torch.int64)
    return Targets(torch.zeros(0, 4), none, none, len(labels), semantic=labels)


@pytest.mark.parametrize("coarsest", [(7, 9), (2, 3), (1, 1)])
def test_the_coarsest_map_is_pooled_to_the_grids(coarsest: tuple[int, int]) -> None:
    """Also where it has fewer cells than a grid, and where sizes do not double."""
    head = NARROW.build(FOUR, 3).eval()
    maps = maps_of((31, 37), (13, 19), (7, 10), coarsest)
    seen: list[Tensor] = []
    for branch in head.pyramid.branches:
        branch.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    raw = head(maps)
    assert [tuple(x.shape[2:]) for x in seen] == [(1, 1), (2, 2), (3, 3), (6, 6)]
    torch.testing.assert_close(seen[0][:, :, 0, 0], maps[-1].mean((2, 3)))
    left = slice(0, -(-coarsest[1] // 2))
    torch.testing.assert_close(seen[1][:, :, 0, 0], maps[-1][:, :, : -(-coarsest[0] // 2), left].mean((2, 3)))
    assert raw.logits.shape == (2, 3, 31, 37) and raw.auxiliary is not None and raw.auxiliary.shape == (2, 3, 7, 10)


class Pictures:
    """A batch as far as statistics are concerned."""

    def __init__(self, count: int) -> None:
        self.images = torch.randint(0, 255, (count, 3, 64, 64), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.images)


def test_one_image_is_enough() -> None:
    """A single pooled cell has no statistics: the running ones hold, and stay as they are."""
    model = narrow_model().train()
    check_training_size(model, 64, smallest_batch=1)
    cell, *others = [branch.norm for branch in model.head.pyramid.branches]
    with torch.no_grad():
        cell.running_mean.fill_(0.5)
        cell.running_var.fill_(4.0)
    images = torch.rand(1, 3, 64, 64)
    raw = model(images)
    raw.logits.sum().backward()
    assert raw.logits.isfinite().all() and model.head.pyramid.branches[0].conv.weight.grad.isfinite().all()
    assert (cell.running_mean == 0.5).all() and (cell.running_var == 4.0).all() and cell.num_batches_tracked == 0
    assert all(norm.num_batches_tracked == 1 for norm in others)
    assert recompute_statistics(model, [Pictures(1), Pictures(1)]) == 2  # type: ignore[list-item]
    assert (cell.running_var == 4.0).all() and others[0].num_batches_tracked == 2
    model.train()(images.expand(2, -1, -1, -1))
    assert cell.num_batches_tracked == 1 and (cell.running_mean != 0.5).any()


def test_the_auxiliary_head_is_for_training_only() -> None:
    model = narrow_model().eval()
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    deployed = model.deployed()
    assert model.spec.form == "training" and deployed.spec.form == "deploy"
    assert {key for key in model.state_dict() if key not in deployed.state_dict()} == {
        key for key in model.state_dict() if key.startswith("head.auxiliary")
    }
    with torch.no_grad():
        before, after = model(images), deployed(images)
        assert before.auxiliary is not None and after.auxiliary is None
        assert torch.equal(before.logits, after.logits)
        logits = deployed.head.segment(after, (64, 96))
        assert logits.shape == (2, 3, 64, 96) and torch.equal(logits, model.head.segment(before, (64, 96)))
        rebuilt = create_model("revcol-pico+none+uper-net", num_classes=3, backbone={"columns": 2,
            "channels": (8, 16, 16, 16)}, head={"width": 16, "auxiliary_width": 8, "auxiliary": False})  # fmt: skip
        rebuilt.load_state_dict(deployed.state_dict())
        assert torch.equal(rebuilt.eval()(images).logits, after.logits)


def test_dropout_is_for_training_only() -> None:
    model = narrow_model(dropout=0.5)
    images = torch.rand(2, 3, 64, 64)
    assert [m.p for m in model.head.modules() if isinstance(m, nn.Dropout2d)] == [0.5, 0.5]
    assert torch.equal(model.eval()(images).logits, model(images).logits)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(images).logits, model(images).logits)


def test_losses() -> None:
    model = narrow_model().eval()
    images, labels = torch.rand(2, 3, 64, 96), torch.randint(0, 3, (2, 64, 96))
    labels[0, :40] = 255
    raw = model(images)

    def run(config: PixelLossConfig = DEFAULT, labels: Tensor = labels, raw: PixelOutput = raw) -> Any:
        criterion = build_criterion(model, LossConfig(pixels=config), image_size=96)
        assert not list(criterion.parameters()) and not criterion.state_dict()
        return criterion(raw, semantic_targets(labels), (64, 96))

    output = run()
    for name, logits, gain in (("main", raw.logits, 1.0), ("auxiliary", raw.auxiliary, 0.4)):
        full = F.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
        expected = gain * F.cross_entropy(full, labels, ignore_index=255)
        torch.testing.assert_close(output.items[name], expected.detach())
    torch.testing.assert_close(output.total, sum(output.items.values()) * 2)
    assert run(PixelLossConfig(auxiliary=0)).items["auxiliary"] == 0
    assert set(run(raw=replace(raw, auxiliary=None)).items) == {"main"}
    ignored = run(labels=torch.full_like(labels, 255))
    assert ignored.total == 0 and ignored.total.requires_grad, "nothing counts, and nothing is divided by nothing"


@pytest.mark.parametrize(
    ("channels", "strides", "classes", "options", "message"),
    [
        ((8,), (32,), 3, {}, "cannot read a single map of stride 32"),
        ((8, 8), (8, 16), 1, {}, "ount the background as a class of its own"),
        ((8, 8), (4, 8), 3, {}, r"no map for its auxiliary head among strides \(4, 8\)"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(
    channels: tuple[int, ...], strides: tuple[int, ...], classes: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        UperNetHeadSpec(**options).build(FeatureSpec(channels, strides), classes)


def test_what_does_not_fit_the_model_is_refused() -> None:
    head = replace(NARROW, auxiliary=False).build(FeatureSpec((8, 8), (4, 8)), 3)
    raw = head([torch.rand(2, 8, 16, 24), torch.rand(2, 8, 8, 12)])
    assert raw.auxiliary is None
    with pytest.raises(ConfigError, match="does not come from images"):
        head.segment(raw, (96, 64))
    model = narrow_model(auxiliary=False)
    with pytest.raises(ConfigError, match=r"loss\.pixels\.auxiliary = 0\.2 has no effect"):
        build_criterion(model, LossConfig(pixels=PixelLossConfig(auxiliary=0.2)), image_size=64)
    with pytest.raises(ConfigError, match=r"loss\.semantic\.points = 5 has no effect"):
        build_criterion(model, LossConfig(semantic=SemanticLossConfig(points=5)), image_size=64)
    targets = replace(semantic_targets(torch.zeros(1, 64, 64, dtype=torch.int64)), semantic=None)
    with pytest.raises(ConfigError, match="no label for every pixel"):
        build_criterion(model, LossConfig(), image_size=64)(model(torch.rand(1, 3, 64, 64)), targets, (64, 64))


def test_learns_shapes() -> None:
    torch.manual_seed(0)
    name, backbone = "csp-tiny+none+uper-net", {"finest": 4, "width": 0.25}
    model = create_model(name, num_classes=3, backbone=backbone, head={"width": 16, "auxiliary_width": 8}).train()
    images, targets = toy_shapes(4, 64)
    criterion = build_criterion(model, LossConfig(), image_size=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        criterion(model(images), targets, (64, 64)).total.backward()
        optimizer.step()
    with torch.no_grad():  # with the statistics of the batch: the running ones take longer
        classes = model.head.segment(model(images), (64, 64)).argmax(1)
    assert targets.semantic is not None
    for label in range(3):
        found, truth = classes == label, targets.semantic == label
        assert (found & truth).sum() / (found | truth).sum() > 0.6
