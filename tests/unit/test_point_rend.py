"""PointRend: sampling where it is in doubt, subdivision towards the input's resolution, and it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.heads.point_rend import PointRendHeadSpec
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.segmentation_config import SemanticLossConfig
from cloverleaf.losses.semantic import draw_points, mean_cross_entropy
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.ops.point_sample import labels_at, most_uncertain, sample_at, uncertainty
from cloverleaf.structures import FeatureSpec, SemanticOutput, Targets
from toy_shapes import toy_shapes

NARROW = {"coarse_width": 32, "point_width": 32}


def narrow_model(num_classes=3, **head):
    torch.manual_seed(0)
    name = "timm/resnet18+fpn+point-rend"
    return create_model(name, num_classes=num_classes, neck={"width": 32}, head={**NARROW, **head})


def semantic_targets(labels):
    none = torch.zeros(0, dtype=torch.int64)
    return Targets(torch.zeros(0, 4), none, none, len(labels), semantic=labels)


def by_hand(plane, x, y):
    """Bilinear interpolation of ``(H, W)`` at (x, y) in cells counted from the corner, constant beyond the middles."""
    x, y = (min(max(value - 0.5, 0), side - 1) for value, side in ((x, plane.shape[1]), (y, plane.shape[0])))
    left, top = min(int(x), plane.shape[1] - 2), min(int(y), plane.shape[0] - 2)
    dx, dy = x - left, y - top
    upper, lower = (plane[row, left] * (1 - dx) + plane[row, left + 1] * dx for row in (top, top + 1))
    return float(upper * (1 - dy) + lower * dy)


def test_sampling_is_bilinear_interpolation():
    generator = torch.Generator().manual_seed(0)
    maps, points = torch.randn(2, 3, 5, 7, generator=generator), torch.rand(2, 40, 2, generator=generator)
    points[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.999, 0.0], [0.5, 1.0]])
    sampled = sample_at(maps, points)
    expected = [[[by_hand(plane, x * 7, y * 5) for x, y in of_image.tolist()] for plane in image]
                for image, of_image in zip(maps, points, strict=True)]  # fmt: skip
    torch.testing.assert_close(sampled, torch.tensor(expected))
    row, column = torch.meshgrid((torch.arange(10) + 0.5) / 10, (torch.arange(14) + 0.5) / 14, indexing="ij")
    middles = torch.stack((column, row), -1).view(1, -1, 2).expand(2, -1, -1)
    doubled = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(sample_at(maps, middles), doubled.flatten(2))
    labels = torch.randint(0, 9, (2, 10, 14), generator=generator)
    assert torch.equal(labels_at(labels, middles), labels.flatten(1))
    assert labels_at(labels, torch.ones(2, 1, 2))[0, 0] == labels[0, -1, -1]


def test_doubt_is_the_lead_of_the_best_class():
    logits = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    ranked = logits.sort(dim=1, descending=True).values
    torch.testing.assert_close(uncertainty(logits), ranked[:, 1] - ranked[:, 0])
    index, middles = most_uncertain(logits, 7)
    lead = (ranked[:, 0] - ranked[:, 1]).flatten(1)
    for image in range(2):
        assert set(index[image].tolist()) == set(lead[image].argsort()[:7].tolist())
    torch.testing.assert_close(
        middles, torch.stack(((index % 5 + 0.5) / 5, (index // 5 + 0.5) / 6), -1), msg="(x, y) of the middles"
    )
    assert most_uncertain(logits, 999)[0].sort(1).values.equal(torch.arange(30).expand(2, 30))


@pytest.mark.parametrize(("importance", "oversample"), [(0.75, 3.0), (1.0, 5.0), (0.0, 1.0), (0.5, 1.5)])
def test_points_are_drawn_where_the_class_is_in_doubt(importance, oversample):
    logits, count = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2)), 40
    torch.manual_seed(3)
    points = draw_points(logits, count, oversample=oversample, importance=importance)
    torch.manual_seed(3)
    assert torch.equal(points, draw_points(logits, count, oversample=oversample, importance=importance))
    torch.manual_seed(3)
    candidates = torch.rand(3, int(oversample * count), 2)  # the same draws
    uniform = torch.rand(3, count - round(importance * count), 2)
    assert points.shape == (3, count, 2) and points.min() >= 0 and points.max() < 1
    for image in range(3):
        doubt = uncertainty(sample_at(logits, candidates))[image]
        wanted = {
            tuple(p) for p in candidates[image][doubt.argsort(descending=True)[: round(importance * count)]].tolist()
        }
        assert {tuple(p) for p in points[image].tolist()} == wanted | {tuple(p) for p in uniform[image].tolist()}


def test_subdivision_sharpens_what_is_only_known_at_points():
    """A point head that knows the truth, and a coarse map that is the truth averaged over cells of 8 x 8 pixels."""
    row, column = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    truth = torch.stack([(torch.hypot(row - 60, column - 40) < 30), (row * 0.7 + column < 80)]).long()
    exact = F.one_hot(truth, 2).permute(0, 3, 1, 2).float() * 10
    head = PointRendHeadSpec(**NARROW, subdivision_points=400).build(FeatureSpec((4, 4), (8, 16)), 2)
    head.point_logits = lambda raw, points: F.one_hot(labels_at(truth, points), 2).transpose(1, 2).float() * 10
    coarse = F.avg_pool2d(exact, 8)
    logits = head.segment(SemanticOutput(coarse, torch.zeros(2, 4, 16, 12)), (128, 96))
    assert logits.shape == (2, 2, 128, 96) and logits.dtype == torch.float32
    upsampled = F.interpolate(coarse, size=(128, 96), mode="bilinear", align_corners=False)
    wrong, before = ((x.argmax(1) != truth).float().mean().item() for x in (logits, upsampled))
    assert wrong < 0.001 < 0.005 < before
    with pytest.raises(ConfigError, match="does not come from images"):
        head.segment(SemanticOutput(coarse, coarse), (96, 128))


def test_every_step_refines_as_many_points_as_are_asked_for():
    model = narrow_model().eval()
    asked = []
    refine = model.head.point_logits
    model.head.point_logits = lambda raw, points: asked.append(points.shape[1]) or refine(raw, points)
    with torch.no_grad():
        raw = model(torch.rand(1, 3, 128, 192))
        logits = model.head.segment(raw, (128, 192))
    assert asked == [128 * 192 // 256] * 2, "from stride 4 in two steps, as many as a map of stride 16 has cells"
    coarse = F.interpolate(raw.coarse, size=(64, 96), mode="bilinear", align_corners=False)
    coarse = F.interpolate(coarse, size=(128, 192), mode="bilinear", align_corners=False)
    changed = (logits - coarse).abs().amax(1) > 1e-6
    assert 0 < changed.float().mean() < 0.25, "most cells keep the interpolated logits"


def test_losses():
    model = narrow_model()
    images, labels = torch.rand(2, 3, 64, 96), torch.randint(0, 3, (2, 64, 96))
    labels[0, :40] = 255
    raw = model(images)

    def run(config=None, labels=labels, reduce=None):
        torch.manual_seed(0)
        criterion = build_criterion(
            model, LossConfig(semantic=config or SemanticLossConfig()), image_size=96, reduce=reduce
        )
        assert not list(criterion.parameters()) and not criterion.state_dict()
        return criterion(raw, semantic_targets(labels), (64, 96))

    output = run()
    upsampled = F.interpolate(raw.coarse, size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.items["coarse"], F.cross_entropy(upsampled, labels, ignore_index=255).detach())
    torch.manual_seed(0)
    points = draw_points(raw.coarse, 24, oversample=3, importance=0.75)
    expected = mean_cross_entropy(model.head.point_logits(raw, points), labels_at(labels, points))
    torch.testing.assert_close(output.items["point"], expected.detach())
    torch.testing.assert_close(output.total, sum(output.items.values()) * 2)
    assert run(SemanticLossConfig(coarse=0)).items["coarse"] == 0
    ignored = run(labels=torch.full_like(labels, 255))
    assert ignored.total == 0 and ignored.total.requires_grad, "nothing counts, and nothing is divided by nothing"
    shared = run(reduce=lambda x: x * 2)  # another process with the same images
    torch.testing.assert_close(shared.items, output.items)
    output.total.backward()
    parts = {key: p.grad for part in ("neck", "head") for key, p in model.get_submodule(part).named_parameters()}
    assert all(grad is not None and grad.any() for grad in parts.values())


def test_what_does_not_fit_is_refused():
    for strides, classes, message in (((4, 16), 3, "add up maps"), ((4, 8), 1, "ount the background")):
        with pytest.raises(ConfigError, match=message):
            PointRendHeadSpec().build(FeatureSpec((8, 8), strides), classes)
    model = narrow_model()
    raw, targets = model(torch.rand(1, 3, 64, 64)), semantic_targets(torch.zeros(1, 64, 64, dtype=torch.int64))
    with pytest.raises(ConfigError, match="no label for every pixel"):
        build_criterion(model, LossConfig(), image_size=64)(raw, replace(targets, semantic=None), (64, 64))
    with pytest.raises(ConfigError, match=r"loss\.assigner = .* has no effect"):
        build_criterion(model, LossConfig(assigner="anchor_ratio"), image_size=64)


def test_learns_shapes():
    torch.manual_seed(0)
    name, backbone = "csp-tiny+fpn+point-rend", {"finest": 4, "width": 0.5}
    model = create_model(name, num_classes=3, backbone=backbone, neck={"width": 32}, head=NARROW).train()
    images, targets = toy_shapes(4, 64)
    criterion = build_criterion(model, LossConfig(), image_size=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = math.inf
    for step in range(40):
        optimizer.zero_grad()
        output = criterion(model(images), targets, (64, 64))
        first = output.items["point"] if step == 0 else first
        output.total.backward()
        optimizer.step()
    with torch.no_grad():  # with the statistics of the batch: the running ones take longer
        classes = model.head.segment(model(images), (64, 64)).argmax(1)
    assert output.items["point"] < first / 3
    for label in range(3):
        found, truth = classes == label, targets.semantic == label
        assert (found & truth).sum() / (found | truth).sum() > 0.6
