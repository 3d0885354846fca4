"""Cascade Mask R-CNN: stages refine each other's boxes, demand more and more, and speak together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.heads.cascade_mask_rcnn import CascadeMaskRcnnHead, CascadeMaskRcnnHeadSpec
from cloverleaf.heads.regions import Limits
from cloverleaf.losses.cascade import CascadeCriterion
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.regions import per_image
from cloverleaf.losses.segmentation_config import CascadeLossConfig, RegionLossConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.ops.iou import aligned_iou, pairwise_iou
from cloverleaf.structures import FeatureSpec, RegionOutput, Targets
from cloverleaf.training.recalibrate import recompute_statistics, statistics_of
from toy_shapes import toy_shapes

SIZE = (96, 128)
NARROW: dict[str, Any] = {"representation": 16, "mask_width": 8, "mask_layers": 1, "box_layers": 1, "box_width": 8}
EVERYTHING = Limits(0.0, 1000)
SPEC = CascadeMaskRcnnHeadSpec(**NARROW, nms_iou=0.999)


def head_of(spec: CascadeMaskRcnnHeadSpec = SPEC) -> CascadeMaskRcnnHead:
    torch.manual_seed(0)
    return spec.build(FeatureSpec((8, 8), (8, 16)), 2).eval()


def output_of(head: CascadeMaskRcnnHead, images: int = 1) -> RegionOutput:
    generator = torch.Generator().manual_seed(1)
    return head([torch.randn(images, 8, SIZE[0] // s, SIZE[1] // s, generator=generator) for s in head.strides])


def constant(head: CascadeMaskRcnnHead, stage: int, *, logits: list[float], deltas: list[float] | None = None) -> None:
    """A stage that says the same of every region."""
    predictor: Any = head.stages[stage].box_predictor
    with torch.no_grad():
        for layer in (predictor.cls_score, predictor.bbox_pred):
            layer.weight.zero_()
        predictor.cls_score.bias.copy_(torch.tensor(logits))
        predictor.bbox_pred.bias.copy_(torch.tensor(deltas or [0.0] * 4 * len(logits)))


def targets_of(*boxes: tuple[float, ...]) -> Targets:
    """One image; the masks fill the boxes, and every object has class 1."""
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    index = torch.zeros(len(boxes), dtype=torch.int64)
    return Targets(corners, index + 1, index, 1, masks=masks)


@pytest.mark.parametrize("agnostic", [False, True])
def test_each_stage_refines_the_boxes_of_the_one_before(agnostic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of constant deltas the moves add up and the growths multiply; those of the likelier object are taken."""
    head = head_of(replace(SPEC, class_agnostic=agnostic))
    wrong = [9.0, 9.0, 9.0, 9.0]
    for stage in range(3):
        own = [1.0, -1.0, 0.5, 0.0]
        constant(head, stage, logits=[0.0, -9.0, 3.0], deltas=own if agnostic else [*wrong, *wrong, *own])
    seen: list[Tensor] = []
    read = head.read
    monkeypatch.setattr(
        head, "read", lambda stage, maps, regions, size: seen.append(regions[0]) or read(stage, maps, regions, size)
    )
    regions = torch.tensor([[40.0, 40.0, 60.0, 70.0], [100.0, 60.0, 128.0, 90.0]])
    [found] = head.detect(head.named_maps(output_of(head)), [regions], SIZE, EVERYTHING)
    centre, half = (regions[:, :2] + regions[:, 2:]) / 2, (regions[:, 2:] - regions[:, :2]) / 2
    expected = [regions]
    for deviation in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067)):
        centre = centre + torch.tensor([1.0, -1.0]) * deviation[0] * 2 * half
        half = half * torch.tensor([math.exp(0.5 * deviation[1]), 1.0])
        boxes = torch.cat((centre - half, centre + half), 1).clamp(min=0)
        boxes = torch.minimum(boxes, torch.tensor([SIZE[1], SIZE[0]] * 2))
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        expected.append(boxes)
    assert len(seen) == 3
    for ours, by_hand in zip(seen, expected[:3], strict=True):
        torch.testing.assert_close(ours, by_hand)
    likely = found["boxes"][found["labels"] == 2]
    torch.testing.assert_close(likely[likely[:, 0].argsort()], expected[-1], atol=1e-3, rtol=1e-5)


def test_scores_are_the_mean_of_all_stages_and_masks_too() -> None:
    head = head_of()
    logits = [[0.0, 1.0, 3.0], [2.0, 2.0, -4.0], [0.5, 0.0, 60.0]]
    for stage, (of_stage, mask) in enumerate(zip(logits, (2.0, -1.0, 0.5), strict=True)):
        constant(head, stage, logits=of_stage)
        predictor: Any = head.stages[stage].mask_predictor
        with torch.no_grad():
            predictor.mask_fcn_logits.weight.zero_()
            predictor.mask_fcn_logits.bias.copy_(torch.tensor([0.0, mask, -mask]))
    regions = [torch.tensor([[10.0, 10.0, 40.0, 50.0]]), torch.zeros(0, 4)]
    found, nothing = head.detect(head.named_maps(output_of(head, 2)), regions, SIZE, EVERYTHING)
    mean = torch.tensor(logits).softmax(1).mean(0)
    masks = torch.tensor([2.0, -1.0, 0.5])
    assert found["labels"].tolist() == [2, 1]
    torch.testing.assert_close(found["scores"], mean[[2, 1]])
    torch.testing.assert_close(found["masks"][0].unique(), (-masks).sigmoid().mean()[None])
    torch.testing.assert_close(found["masks"][1].unique(), masks.sigmoid().mean()[None])
    assert nothing["boxes"].shape == (0, 4) and nothing["masks"].shape == (0, 1, 28, 28)


def test_masks_of_the_last_stage_alone() -> None:
    head = head_of(replace(SPEC, mask_stages="last"))
    assert [stage.mask_head is None for stage in head.stages] == [True, True, False]  # type: ignore[union-attr]
    [found] = head.instances(output_of(head), SIZE)
    assert found.masks.shape[1:] == (28, 28) and len(found)
    criterion = CascadeCriterion(CascadeLossConfig(), head=head)
    output = criterion(output_of(head), targets_of((10, 10, 40, 50)), SIZE)
    assert output.items["mask"] > 0


def test_each_stage_demands_more() -> None:
    """Regions that overlap an object by 0.55, 0.65 and 0.75 are positive in one, two and three stages."""
    head, truth = head_of(), torch.tensor([[0.0, 0.0, 100.0, 80.0]])
    regions = truth.repeat(3, 1) * torch.tensor([[1, 1, overlap, 1] for overlap in (0.55, 0.65, 0.75)])
    torch.testing.assert_close(pairwise_iou(regions, truth)[:, 0], torch.tensor([0.55, 0.65, 0.75]))
    positive = []
    for stage in head.stages:
        _, [labels] = stage.assign_targets_to_proposals([regions], [truth], [torch.tensor([2])])
        positive.append((labels == 2).tolist())
    assert positive == [[True, True, True], [False, True, True], [False, False, True]]


@pytest.mark.parametrize("loss", ["giou", "smooth-l1"])
def test_one_stage_by_hand(loss: Any) -> None:
    """Two regions, one near the object: it and the true box are positive, and only true boxes are not refined."""
    head = head_of()
    for stage in range(3):
        constant(head, stage, logits=[0.0, 0.0, 0.0])
    criterion = CascadeCriterion(CascadeLossConfig(box_loss=loss), head=head)
    truth = per_image(targets_of((20, 20, 60, 70)), SIZE)
    near, far = [24.0, 20.0, 64.0, 70.0], [80.0, 10.0, 100.0, 40.0]
    maps = head.named_maps(output_of(head))
    losses, [kept] = criterion._stage(0, maps, [torch.tensor([far, near])], truth, SIZE)
    assert kept.tolist() == [far, near]
    torch.testing.assert_close(losses[0], torch.tensor(math.log(3)))
    if loss == "giou":
        expected = 1 - aligned_iou(torch.tensor(near), truth[0]["boxes"][0], "giou")
    else:  # a tenth of the width to the left, by 0.1: a delta of -1
        expected = torch.tensor(1 - 1 / 18)
    torch.testing.assert_close(losses[1], expected / 3, atol=1e-5, rtol=1e-5)
    [last] = criterion._stage(2, maps, [torch.tensor([far, near])], truth, SIZE)[1]
    assert len(last) == 2


def test_items_are_the_stages_by_their_weights() -> None:
    head = head_of()
    raw, targets = output_of(head), targets_of((20, 20, 60, 70), (70, 10, 120, 60))

    def items(**options: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return CascadeCriterion(CascadeLossConfig(**options), head=head)(raw, targets, SIZE).items

    single = [items(stage_weights=tuple(float(k == stage) for k in range(3))) for stage in range(3)]
    together, plain = items(), items(box=1.0)
    for name in ("cls", "box", "mask"):
        parts = [of_stage[name] for of_stage in single]
        assert min(parts) > 0 and len({round(float(part), 5) for part in parts}) == 3
        torch.testing.assert_close(together[name], parts[0] + 0.5 * parts[1] + 0.25 * parts[2])
    torch.testing.assert_close(together["box"], 10 * plain["box"])
    torch.testing.assert_close(items(box_loss="smooth-l1")["box"], items(box_loss="smooth-l1", box=1.0)["box"])
    assert together["objectness"] == plain["objectness"] == single[1]["objectness"]


def model(**head: Any) -> Any:
    torch.manual_seed(0)
    backbone = {"columns": 2, "channels": (8, 16, 16, 16)}
    name = "revcol-pico+fpn+cascade-mask-rcnn"
    return create_model(name, num_classes=3, backbone=backbone, neck={"width": 16}, head={**NARROW, **head})


@pytest.mark.parametrize("boxes", [((20, 20, 60, 70), (70, 10, 120, 60)), ()])
@pytest.mark.parametrize("options", [{}, {"box_layers": 0, "connected_layers": 2, "class_agnostic": True}])
def test_every_stage_learns(options: dict[str, Any], boxes: tuple[tuple[float, ...], ...]) -> None:
    trained = model(**options).train()
    criterion = build_criterion(trained, LossConfig(), image_size=128)
    assert not list(criterion.parameters()) and not criterion.state_dict()
    criterion(trained(torch.rand(1, 3, *SIZE)), targets_of(*boxes), SIZE).total.backward()
    gradients = {key: p.grad for part in ("neck", "head") for key, p in trained.get_submodule(part).named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    idle = {key for key, gradient in gradients.items() if gradient is not None and not gradient.any()}
    assert idle == (set() if boxes else {key for key in gradients if "mask" in key or "bbox_pred" in key})
    trained.requires_grad_(False)
    found = trained.eval().head.instances(trained(torch.rand(1, 3, *SIZE)), SIZE, max_detections=3)
    assert len(found[0]) <= 3 and found[0].labels.max() < 3


def test_statistics_of_regions_outlive_their_recomputation() -> None:
    """Averaged weights get the statistics of images, of which the box heads see none."""
    trained = create_model("timm/resnet10t+fpn+cascade-mask-rcnn", num_classes=2, neck={"width": 16}, head=NARROW)
    norms = statistics_of(trained)
    for norm in norms:
        norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    batch: Any = [torch.rand(3, 64, 64)] * 2
    pictures = type("Pictures", (), {"images": torch.stack(batch).mul(255).byte(), "__len__": lambda self: 2})()
    assert recompute_statistics(trained, [pictures]) == 2
    kept = {id(norm) for norm in norms if (norm.running_mean == 7.0).all()}
    assert kept == {id(norm) for norm in statistics_of(trained.head)} and len(kept) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlaps": (0.5, 0.6)}, "2 stages by head.overlaps, 3 by head.deviations"),
        ({"overlaps": (0.5, 0.7, 0.6)}, "fall"),
        ({"anchor_sides_px": ((16,),)}, "anchor_sides_px"),
    ],
)
def test_stages_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CascadeMaskRcnnHeadSpec(**NARROW, **options).build(FeatureSpec((8, 8), (8, 16)), 2)


def test_what_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="cascade-mask-rcnn cannot read maps of strides"):
        SPEC.build(FeatureSpec((8, 8), (4, 16)), 2)
    cascade = model(overlaps=(0.5, 0.6), deviations=SPEC.deviations[:2])
    with pytest.raises(ConfigError, match=r"stage_weights = \(1.0, 0.5, 0.25\) for 2 stages"):
        build_criterion(cascade, LossConfig(), image_size=128)
    weights = CascadeLossConfig(stage_weights=(1.0, 0.5))
    criterion = build_criterion(cascade, LossConfig(cascade=weights), image_size=128)
    with pytest.raises(ConfigError, match="no masks"):
        criterion(cascade(torch.rand(1, 3, *SIZE)), replace(targets_of(), masks=None), SIZE)
    with pytest.raises(ConfigError, match=r"loss\.regions\.mask = 2\.0 has no effect"):
        build_criterion(cascade, LossConfig(cascade=weights, regions=RegionLossConfig(mask=2)), image_size=128)
    with pytest.raises(ConfigError, match=r"loss\.cascade\.stage_weights = \(1\.0, 0\.5\) has no effect"):
        build_criterion(create_model("yolov7-tiny"), LossConfig(cascade=weights), image_size=128)


def test_learns_shapes() -> None:
    torch.manual_seed(0)
    head = {**NARROW, "box_layers": 0, "connected_layers": 2, "representation": 64, "mask_width": 16}
    regions = {"train_proposals": 50, "proposals": 50, "box_samples": 32}
    name, backbone = "csp-tiny+fpn+cascade-mask-rcnn", {"finest": 4, "width": 0.25}
    trained = create_model(name, num_classes=2, backbone=backbone, neck={"width": 16}, head=head | regions).train()
    images, targets = toy_shapes(4, 64)
    criterion = build_criterion(trained, LossConfig(), image_size=64)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        criterion(trained(images), targets, (64, 64)).total.backward()
        optimizer.step()
    with torch.no_grad():  # with the statistics of the batch: the running ones take longer
        found = trained.head.instances(trained(images), (64, 64), confidence=0.3, max_detections=5)
    for image, truth in zip(found, per_image(targets, (64, 64)), strict=True):
        best = [int((image.labels == label).nonzero()[0]) for label in (0, 1)]  # they are sorted by score
        assert aligned_iou(image.boxes_xyxy[best], truth["boxes"]).min() > 0.6
