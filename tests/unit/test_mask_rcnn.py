"""Mask R-CNN: equal to torchvision's model, usable over any pyramid, and it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from cloverleaf.errors import ConfigError
from cloverleaf.heads.mask_rcnn import MaskRcnnHeadSpec
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.regions import per_image
from cloverleaf.losses.segmentation_config import RegionLossConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.structures import FeatureSpec, Targets
from toy_shapes import toy_shapes

SIZE = (128, 192)
NARROW = {"representation": 64, "mask_width": 16, "mask_layers": 2}


def narrow_model(num_classes=3, **head):
    torch.manual_seed(0)
    name = "timm/resnet18+fpn+mask-rcnn"
    return create_model(name, num_classes=num_classes, neck={"width": 32}, head={**NARROW, **head})


def targets_of(*images, size=SIZE):
    """Per image its (label, x1, y1, x2, y2); the masks fill the boxes."""
    rows = [(i, *row) for i, image in enumerate(images) for row in image]
    boxes = torch.tensor([row[2:] for row in rows], dtype=torch.float32).view(-1, 4)
    masks = torch.zeros(len(rows), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    labels, index = (torch.tensor([row[i] for row in rows], dtype=torch.int64) for i in (1, 0))
    return Targets(boxes, labels, index, len(images), masks=masks)


TWO = ((0, 20, 10, 60, 50), (2, 100, 30, 180, 120))
CASES = {"objects": (TWO, TWO[:1]), "one image without": ((), TWO), "none": ((), ())}


@pytest.fixture(scope="module")
def twins():
    """torchvision's model and ours with the same tensors; predictors are widened so that scores spread."""
    torch.manual_seed(3)
    theirs = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=5,
        rpn_post_nms_top_n_test=60,
        rpn_post_nms_top_n_train=60,
        box_detections_per_img=15,
    )
    with torch.no_grad():
        for module in (*theirs.rpn.head.children(), theirs.roi_heads.box_predictor):
            for parameter in module.parameters():
                parameter.normal_(std=0.02)
                parameter -= parameter.mean(-1, keepdim=True)  # features are positive: no class is to win everywhere
    head = {"proposals": 60, "train_proposals": 60}
    ours = create_model("timm/resnet50+fpn+mask-rcnn", num_classes=4, head=head)
    prefixes = {"backbone.body": "backbone.body", "neck": "backbone.fpn", "head": ""}
    state = {}
    for key in ours.state_dict():
        prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
        state[key] = theirs.state_dict()[f"{prefixes[prefix]}{key.removeprefix(prefix)}".lstrip(".")]
    assert len(state) == len(theirs.state_dict()), "a tensor of torchvision's has no place in ours"
    ours.load_state_dict(state)
    return theirs.eval(), ours.eval()


def test_detections_equal_those_of_torchvision(twins):
    theirs, ours = twins
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        maps = theirs.backbone(images)
        proposals, _ = theirs.rpn(ImageList(images, [SIZE] * 2), maps)
        expected, _ = theirs.roi_heads(maps, proposals, [SIZE] * 2)
        found = ours.head.instances(ours(images), SIZE, confidence=0.05, max_detections=15)
    for image, wanted in zip(found, expected, strict=True):
        assert len(image) == 15 and len(image.labels.unique()) > 1
        torch.testing.assert_close(image.boxes_xyxy, wanted["boxes"], atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(image.scores, wanted["scores"])
        torch.testing.assert_close(image.labels, wanted["labels"] - 1)
        torch.testing.assert_close(image.masks, wanted["masks"][:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_losses_equal_those_of_torchvision(twins, case):
    theirs, ours = twins
    images, targets = torch.randn(2, 3, *SIZE), targets_of(*CASES[case])
    truth = per_image(targets, SIZE)
    try:
        theirs.rpn.train(), theirs.roi_heads.train()
        with torch.no_grad():
            maps = theirs.backbone(images)
            torch.manual_seed(5)
            proposals, first = theirs.rpn(ImageList(images, [SIZE] * 2), maps, truth)
            _, second = theirs.roi_heads(maps, proposals, [SIZE] * 2, truth)
            torch.manual_seed(5)
            output = build_criterion(ours, LossConfig(), image_size=192)(ours(images), targets, SIZE)
    finally:
        theirs.eval()
    names = {"objectness": "loss_objectness", "proposal": "loss_rpn_box_reg", "cls": "loss_classifier",
             "box": "loss_box_reg", "mask": "loss_mask"}  # fmt: skip
    for name, published in names.items():
        torch.testing.assert_close(output.items[name], {**first, **second}[published], msg=name)
    torch.testing.assert_close(output.total, sum(output.items.values()) * 2)


@pytest.mark.parametrize("case", CASES)
def test_every_weight_gets_a_gradient(case):
    model = narrow_model()
    criterion = build_criterion(model, LossConfig(), image_size=192)
    assert not list(criterion.parameters()) and not criterion.state_dict()
    criterion(model(torch.rand(2, 3, *SIZE)), targets_of(*CASES[case]), SIZE).total.backward()
    parts = {key: p.grad for part in ("neck", "head") for key, p in model.get_submodule(part).named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in parts.values())
    idle = {key for key, grad in parts.items() if not grad.any()}
    learns_from_objects = {key for key in parts if "mask" in key or "bbox_pred" in key}
    assert idle == (set() if case != "none" else learns_from_objects)


def test_the_seed_decides_and_the_mode_of_the_model_does_not():
    model = narrow_model(box_samples=16, rpn_samples=16)
    model.eval()
    raw, targets = model(torch.rand(2, 3, *SIZE)), targets_of(TWO, TWO)
    criterion = build_criterion(model, LossConfig(), image_size=192)

    def total(seed):
        torch.manual_seed(seed)
        return criterion(raw, targets, SIZE).total

    first = total(1)
    model.train()
    assert torch.equal(first, total(1)) and not torch.equal(first, total(2))


def test_gains_and_shares_of_processes():
    model = narrow_model()
    raw, targets = model(torch.rand(2, 3, *SIZE)), targets_of(TWO, TWO)
    plain, doubled = RegionLossConfig(), RegionLossConfig(mask=2, proposal=0)

    def run(config, reduce=None):
        torch.manual_seed(0)
        return build_criterion(model, LossConfig(regions=config), image_size=192, reduce=reduce)(raw, targets, SIZE)

    alone, weighted = run(plain), run(doubled)
    torch.testing.assert_close(weighted.items["mask"], 2 * alone.items["mask"])
    assert weighted.items["proposal"] == 0 and weighted.items["cls"] == alone.items["cls"]
    # another process with one image whose losses are all 0: the items are means over three images
    shared = run(plain, reduce=lambda x: x + torch.tensor([0.0] * 5 + [1.0]))
    torch.testing.assert_close(shared.total, alone.total)
    torch.testing.assert_close(shared.items["cls"], alone.items["cls"] * 2 / 3)


def test_bad_targets():
    model = narrow_model()
    criterion = build_criterion(model, LossConfig(), image_size=192)
    raw, good = model(torch.rand(1, 3, *SIZE)), targets_of(TWO)
    with pytest.raises(ConfigError, match="no masks"):
        criterion(raw, replace(good, masks=None), SIZE)
    with pytest.raises(ConfigError, match="do not fit images"):
        criterion(raw, replace(good, masks=good.masks[:, ::2]), SIZE)
    flat = targets_of((*TWO, (1, 30, 40, 30, 60)))
    assert [len(x["boxes"]) for x in per_image(flat, SIZE)] == [2], "a box without width cannot be expressed"
    with pytest.raises(ConfigError, match=r"loss\.box = 1\.0 has no effect"):
        build_criterion(model, LossConfig(box=1.0), image_size=192)
    with pytest.raises(ConfigError, match=r"loss\.regions\.mask = 2\.0 has no effect"):
        build_criterion(create_model("yolov7-tiny"), LossConfig(regions=RegionLossConfig(mask=2)), image_size=192)


def test_instances_keep_their_promises():
    model = narrow_model(score_threshold=0.1, detections=50).eval()
    raw = model(torch.rand(2, 3, *SIZE))
    before = dict(vars(model.head.roi_heads))
    found = model.head.instances(raw, SIZE, confidence=0.0, max_detections=100)
    assert [len(x) for x in found] == [50, 50], "limits of the head hold"
    for image in found:
        assert image.masks.shape == (50, 28, 28) and 0 <= image.masks.min() <= image.masks.max() <= 1
        assert (image.scores.diff() <= 0).all() and image.scores.min() > 0.1
        assert image.labels.min() >= 0 and image.labels.max() < 3
        assert image.boxes_xyxy.min() >= 0 and (image.boxes_xyxy[:, 2:].amax(0) <= torch.tensor([192, 128])).all()
    fewer = model.head.instances(raw, SIZE, confidence=0.0, max_detections=3)[0]
    torch.testing.assert_close(fewer.boxes_xyxy, found[0].boxes_xyxy[:3])
    none = model.head.instances(raw, SIZE, confidence=0.999, max_detections=100)[1]
    assert len(none) == 0 and none.masks.shape == (0, 28, 28)
    assert dict(vars(model.head.roi_heads)) == before, "asking for instances changed the head"
    with pytest.raises(ConfigError, match="does not come from images"):
        model.head.instances(raw, (192, 128), confidence=0.0, max_detections=1)


@pytest.mark.parametrize(
    ("channels", "strides", "options", "adapted", "levels"),
    [
        ((8, 8, 8), (8, 16, 32), {}, 0, (8, 16, 32, 64)),
        ((8, 16, 24), (8, 16, 32), {"pooled_level": False}, 3, (8, 16, 32)),
        ((8, 16), (16, 32), {"width": 16}, 1, (16, 32, 64)),
        ((8,), (16,), {"pooled_level": False, "anchor_sides_px": ((16, 32, 64),)}, 0, (16,)),
    ],
)
def test_levels_follow_from_the_neck(channels, strides, options, adapted, levels):
    spec = MaskRcnnHeadSpec(**NARROW, **options)
    head = spec.build(FeatureSpec(channels, strides), 2)
    assert sum(isinstance(x, torch.nn.Conv2d) for x in head.adapt) == adapted
    assert head.strides == strides and head.proposal_strides == levels
    raw = head([torch.randn(1, c, SIZE[0] // s, SIZE[1] // s) for c, s in zip(channels, strides, strict=True)])
    anchors = head.anchors(raw)
    assert len(anchors) == sum(x.numel() for x in raw.objectness)
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    per_cell = raw.objectness[0].shape[1]
    torch.testing.assert_close(middles[per_cell], torch.tensor([float(strides[0]), 0.0]), atol=1, rtol=0)
    sides = (anchors[:, 2:] - anchors[:, :2]).prod(1).sqrt()
    assert sides[0] == pytest.approx(options.get("anchor_sides_px", ((8 * strides[0],),))[0][0], rel=0.03)
    assert head.instances(raw, SIZE)[0].masks.shape[1:] == (28, 28)


@pytest.mark.parametrize(
    ("strides", "options", "message"),
    [
        ((4, 16), {}, "strides"),
        ((6, 12), {}, "strides"),
        ((4, 8), {"anchor_sides_px": ((16,), (32,))}, "head.pooled_level adds a level"),
        ((4, 8), {"anchor_sides_px": ((16,), (32, 64), (8,))}, "equally long"),
    ],
)
def test_what_does_not_fit_is_refused(strides, options, message):
    with pytest.raises(ConfigError, match=message):
        MaskRcnnHeadSpec(**options).build(FeatureSpec((8,) * len(strides), strides), 2)


def test_learns_shapes():
    torch.manual_seed(0)
    head = {**NARROW, "train_proposals": 50, "proposals": 50, "box_samples": 32}
    backbone = {"finest": 4, "width": 0.5}
    name = "csp-tiny+fpn+mask-rcnn"
    model = create_model(name, num_classes=2, backbone=backbone, neck={"width": 32}, head=head).train()
    images, targets = toy_shapes(4, 64)
    criterion = build_criterion(model, LossConfig(), image_size=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(70):
        optimizer.zero_grad()
        criterion(model(images), targets, (64, 64)).total.backward()
        optimizer.step()
    with torch.no_grad():  # with the statistics of the batch: the running ones take longer
        found = model.head.instances(model(images), (64, 64), confidence=0.5, max_detections=5)
    fills = []
    for image, truth in zip(found, per_image(targets, (64, 64)), strict=True):
        order = image.labels.argsort()
        assert image.labels[order].tolist() == [0, 1]
        torch.testing.assert_close(image.boxes_xyxy[order], truth["boxes"], atol=5, rtol=0)
        fills.append((image.masks[order] > 0.5).float().mean((1, 2)))
    disc, square = torch.stack(fills).mean(0)
    assert 0.6 < disc < 0.85 and square > disc + 0.08, "a disc fills pi / 4 of its box, a square all of it"
