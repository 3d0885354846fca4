"""The anchor criterion: gradients without objects, invariances, extreme values, processes, and how it is built."""

import dataclasses
import math
import threading
from types import SimpleNamespace

import pytest
import torch

from anchor_cases import ANCHORS, STRIDES, random_levels, random_targets
from cloverleaf.assigners.anchor_ratio import AnchorRatioAssigner
from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.errors import ConfigError
from cloverleaf.losses.classify import binary_cross_entropy, smooth_one_hot
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.objectness import last_value
from cloverleaf.models.criterion import build_criterion
from cloverleaf.structures import AnchorOutput, Targets

SIZE = (96, 128)
ASSIGNERS = pytest.mark.parametrize("assigner", ["simota", "anchor_ratio"])


def model_of(num_classes=5, anchors_px=ANCHORS, strides=STRIDES, deep=False, bins=0):
    """What a criterion asks of a model; `deep` gives it an auxiliary head."""
    head = SimpleNamespace(auxiliary=strides if deep else (), bins=bins)
    return SimpleNamespace(anchors_px=anchors_px, strides=strides, num_classes=num_classes, head=head)


def criterion_for(num_classes=5, reduce=None, deep=False, bins=0, **options):
    model = model_of(num_classes, deep=deep, bins=bins)
    return build_criterion(model, LossConfig(**options), image_size=640, reduce=reduce)


def output_of(levels):
    """The first levels are the lead's, three more are the auxiliary head's."""
    return AnchorOutput(tuple(levels[:3]), tuple(levels[3:]) or None)


def run(criterion, levels, targets, size_hw=SIZE):
    output = criterion(output_of(levels), targets, size_hw)
    output.total.backward()
    return output, torch.cat([level.grad.flatten() for level in levels])


@ASSIGNERS
@pytest.mark.parametrize("num_classes", [1, 5])
def test_no_targets_train_objectness_only(assigner, num_classes):
    levels = random_levels(2, SIZE, num_classes, requires_grad=True)
    output, _ = run(criterion_for(num_classes, assigner=assigner), levels, random_targets([0, 0], SIZE, num_classes))
    assert output.items["box"] == output.items["cls"] == 0 < output.items["obj"]
    torch.testing.assert_close(output.total, output.items["obj"] * 2)
    for level in levels:
        assert (level.grad[..., 4] > 0).all()
        assert not level.grad[..., :4].any() and not level.grad[..., 5:].any()


@ASSIGNERS
def test_order_of_objects_does_not_matter(assigner):
    """The plain assigner resolves cells shared by objects by list order: only objects far apart are compared there."""
    targets = random_targets([6, 0, 9], SIZE, 5)
    if assigner == "anchor_ratio":
        boxes = torch.tensor([[5.0, 5, 25, 27], [60, 6, 80, 30], [6, 60, 27, 82], [90, 50, 122, 90]])
        image = torch.tensor([0, 0, 0, 2])
        targets = Targets(boxes, torch.tensor([0, 1, 2, 3]), image, 3)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    order = order[targets.image_index[order].argsort(stable=True)]
    shuffled = Targets(targets.boxes_xyxy[order], targets.labels[order], targets.image_index[order], 3)
    results = []
    for version in (targets, shuffled):
        results.append(run(criterion_for(assigner=assigner), random_levels(3, SIZE, 5, requires_grad=True), version))
    (first, first_gradient), (second, second_gradient) = results
    torch.testing.assert_close(first.total, second.total)
    torch.testing.assert_close(first_gradient, second_gradient, rtol=1e-4, atol=1e-6)


@ASSIGNERS
@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
def test_extreme_logits_stay_finite(assigner, scale, gamma):
    levels = random_levels(3, SIZE, 5, requires_grad=False, scale=scale)
    levels = [level.requires_grad_() for level in levels]
    output, gradient = run(criterion_for(assigner=assigner, fl_gamma=gamma), levels, random_targets([4, 9, 0], SIZE, 5))
    assert torch.isfinite(output.total)
    assert torch.isfinite(gradient).all()


def test_half_precision_outputs_are_computed_in_float32():
    targets = random_targets([4, 9, 0], SIZE, 5)
    halves = [level.bfloat16() for level in random_levels(3, SIZE, 5)]
    full = [level.float() for level in halves]
    with torch.autocast("cpu", torch.bfloat16):
        low, low_gradient = run(criterion_for(), [level.requires_grad_() for level in halves], targets)
    high, high_gradient = run(criterion_for(), [level.requires_grad_() for level in full], targets)
    assert low.total.dtype == torch.float32
    torch.testing.assert_close(low.total, high.total)
    torch.testing.assert_close(low_gradient.float(), high_gradient, rtol=1e-2, atol=1e-5)


@ASSIGNERS
@pytest.mark.parametrize("deep", [False, True])
def test_processes_add_up_to_one(assigner, deep):
    """Two processes with half of the images each have the gradients and the items of one with all of them."""
    targets = random_targets([2, 11, 0, 4], SIZE, 5)
    whole_levels = random_levels(4, SIZE, 5, requires_grad=True)
    if deep:
        whole_levels += random_levels(4, SIZE, 5, seed=1, requires_grad=True)
    whole, whole_gradient = run(criterion_for(assigner=assigner, deep=deep), whole_levels, targets)
    barrier, values, outputs = threading.Barrier(2, timeout=20), {}, {}

    def process(rank):
        def reduce(value):
            values[rank] = value.clone()
            barrier.wait()
            total = values[0] + values[1]
            barrier.wait()
            return total

        keep = targets.image_index // 2 == rank
        part = Targets(targets.boxes_xyxy[keep], targets.labels[keep], targets.image_index[keep] - 2 * rank, 2)
        levels = [level.detach()[2 * rank : 2 * rank + 2].requires_grad_() for level in whole_levels]
        output, _ = run(criterion_for(assigner=assigner, deep=deep, reduce=reduce), levels, part)
        outputs[rank] = output, levels

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(outputs[0][0].total + outputs[1][0].total, whole.total)
    pairs = zip(outputs[0][1], outputs[1][1], strict=True)
    gradient = torch.cat([torch.cat((first.grad, second.grad)).flatten() for first, second in pairs])
    torch.testing.assert_close(gradient, whole_gradient, rtol=1e-4, atol=1e-7)
    for rank in range(2):
        for name, value in whole.items.items():
            torch.testing.assert_close(outputs[rank][0].items[name], value)


def test_perfect_predictions_cost_almost_nothing():
    """A box predicted exactly, with the right class, has no loss and an objectness target of 1."""
    targets = Targets(torch.tensor([[28.0, 28, 44, 58]]), torch.tensor([2]), torch.tensor([0]), 1)
    levels = [torch.full_like(level, -20.0) for level in random_levels(1, SIZE, 5)]
    cell = levels[0][0, 1, 5, 4]  # anchor 16 x 30 around the centre (36, 43): cell (4, 5), 0.5 and 0.375 inside
    cell[:4] = torch.tensor([0.0, math.log(0.4375 / 0.5625), 0.0, 0.0])
    cell[4], cell[5 + 2] = 20.0, 20.0
    output = criterion_for()(AnchorOutput(tuple(levels)), targets, SIZE)
    assert output.total < 1e-4


@ASSIGNERS
@pytest.mark.parametrize("num_classes", [1, 5])
def test_classified_sides_work_with_every_assigner_and_an_auxiliary_head(assigner, num_classes):
    """Of a matched cell every value learns, bins and refinement of both sides too; the others learn objectness only."""
    bins, targets = 4, random_targets([6, 0, 9], SIZE, num_classes)
    levels = [
        level for seed in (0, 1)
        for level in random_levels(3, SIZE, num_classes + 2 * bins, seed=seed, requires_grad=True)
    ]  # fmt: skip
    criterion = criterion_for(num_classes, deep=True, bins=bins, assigner=assigner)
    output, gradient = run(criterion, levels, targets)
    assert torch.isfinite(output.total) and torch.isfinite(gradient).all()
    lead = criterion.assigner(levels[:3], targets, ANCHORS, STRIDES, SIZE)
    values = 2 + 2 * (bins + 1) + 1 + (num_classes if num_classes > 1 else 0)
    for i, level in enumerate(levels[:3]):
        learned = level.grad != 0
        assert learned[..., 2 + 2 * (bins + 1)].all()
        on = lead.level == i
        cells = tuple(index[on] for index in (lead.image_index, lead.anchor, lead.row, lead.column))
        if on.any():  # a side that leaves the range is clamped: its refinement rests
            assert learned[cells][:, :values].float().mean() > 0.95
        learned[cells] = False
        assert learned.sum() == learned[..., 2 + 2 * (bins + 1)].sum()


def test_last_match_of_a_cell_counts():
    cell, value = torch.tensor([3, 1, 3, 0, 3]), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    torch.testing.assert_close(last_value(cell, value, 5), torch.tensor([0.4, 0.2, 0.0, 0.5, 0.0]))
    assert last_value(cell[:0], value[:0], 3).tolist() == [0, 0, 0]


def test_focal_and_smoothing_by_hand():
    logits, targets = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    p = 1 / (1 + math.exp(-2.0))
    expected = [0.25 * 0.5**1.5 * -math.log(0.5) * 2.0, 0.75 * p**1.5 * -math.log(1 - p)]
    actual = binary_cross_entropy(logits, targets, positive_weight=2.0, gamma=1.5)
    torch.testing.assert_close(actual, torch.tensor(expected))
    assert smooth_one_hot(torch.tensor([1]), 3, 0.2).tolist()[0] == pytest.approx([0.1, 0.9, 0.1])


def test_gains_scale_with_levels_classes_and_size():
    model = model_of(40, ANCHORS.repeat(2, 1, 1)[:4], (8, 16, 32, 64))
    criterion = build_criterion(model, LossConfig(box=0.05, cls=0.3, obj=0.7), image_size=1280)
    gains = (criterion.box_gain, criterion.cls_gain, criterion.obj_gain)
    assert gains == pytest.approx((0.0375, 0.1125, 2.1))
    unscaled = build_criterion(model, LossConfig(scale_gains=False), image_size=1280)
    assert (unscaled.box_gain, unscaled.cls_gain, unscaled.obj_gain) == (0.05, 0.5, 1.0)


def test_assigner_follows_the_configuration_and_may_be_switched():
    criterion = criterion_for(anchor_t=3.0, dynamic_k_candidates=7)
    assert criterion.assigner == SimOtaAssigner(anchor_t=3.0, top_candidates=7)
    plain = criterion.with_assigner(AnchorRatioAssigner(3.0))
    assert plain.assigner == AnchorRatioAssigner(3.0) and criterion.assigner == SimOtaAssigner(3.0, top_candidates=7)
    levels, targets = random_levels(2, SIZE, 5), random_targets([4, 9], SIZE, 5)
    expected = criterion_for(anchor_t=3.0, assigner="anchor_ratio")(AnchorOutput(tuple(levels)), targets, SIZE)
    torch.testing.assert_close(plain(AnchorOutput(tuple(levels)), targets, SIZE).total, expected.total)
    assert dataclasses.is_dataclass(plain.assigner)


def test_autobalance_only_while_training_and_only_where_it_can():
    criterion = criterion_for(autobalance=True)
    levels, targets = random_levels(2, SIZE, 5), random_targets([4, 9], SIZE, 5)
    start = criterion.balance.clone()
    criterion.eval()(AnchorOutput(tuple(levels)), targets, SIZE)
    assert torch.equal(criterion.balance, start)
    criterion.train()(AnchorOutput(tuple(levels)), targets, SIZE)
    assert not torch.equal(criterion.balance, start) and criterion.balance[1] == 1
    model = model_of(5, ANCHORS[:1], (8,))
    with pytest.raises(ConfigError, match="autobalance"):
        build_criterion(model, LossConfig(autobalance=True), image_size=640)
