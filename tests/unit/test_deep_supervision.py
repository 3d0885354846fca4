"""Deep supervision: what an auxiliary head learns in each of the three ways, the bound of its labels, wrong options."""

import pytest
import torch

from anchor_cases import ANCHORS, STRIDES, random_levels, random_targets, rows_of
from cloverleaf.assigners.anchor_ratio import AnchorRatioAssigner
from cloverleaf.assigners.lead_guided import CoarseToFineAssigner, IndependentAssigner, LeadGuidedAssigner
from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.errors import ConfigError
from cloverleaf.losses.objectness import coarse_bound
from cloverleaf.models.criterion import warmup_criterion
from cloverleaf.structures import AnchorOutput, Targets
from unit.test_criterion import SIZE, criterion_for, output_of, run

MODES = ("independent", "lead-guided", "coarse-to-fine")
EACH = pytest.mark.parametrize("mode", MODES)


def both_heads(batch, num_classes=5):
    return [
        level
        for seed in (0, 1)
        for level in random_levels(batch, SIZE, num_classes, seed=seed, requires_grad=True)
    ]  # fmt: skip


def matches_of(criterion, levels, targets):
    raw, where = output_of(levels), (targets, ANCHORS, STRIDES, SIZE)
    lead = criterion.assigner(raw.levels, *where)
    return set(rows_of(lead)), set(rows_of(criterion.auxiliary(raw, lead, *where)))


def test_who_learns_what():
    """Independent matches follow the auxiliary predictions, guided ones the lead's, and coarse ones are more."""
    levels, targets = both_heads(2), random_targets([6, 9], SIZE, 5)
    swapped = levels[3:] + levels[:3]
    found = {mode: matches_of(criterion_for(deep=True, auxiliary=mode), levels, targets) for mode in MODES}
    lead = found["lead-guided"][0]
    assert all(matches[0] == lead for matches in found.values())
    assert found["lead-guided"][1] == lead
    assert found["independent"][1] == matches_of(criterion_for(deep=True, auxiliary="lead-guided"), swapped, targets)[0]
    coarse = CoarseToFineAssigner(SimOtaAssigner(reach=1.0, top_candidates=20))
    assert criterion_for(deep=True).auxiliary == coarse
    assert found["coarse-to-fine"][1] == set(rows_of(coarse.coarse(levels[:3], targets, ANCHORS, STRIDES, SIZE)))
    plain, wide = matches_of(criterion_for(deep=True, assigner="anchor_ratio"), levels, targets)
    assert plain < wide


@EACH
@pytest.mark.parametrize("assigner", ["simota", "anchor_ratio"])
def test_the_auxiliary_loss_is_the_same_loss_times_its_gain(mode, assigner):
    levels, targets = both_heads(2), random_targets([6, 9], SIZE, 5)
    options = {"assigner": assigner, "auxiliary": mode, "deep": True}
    total, gradient = run(criterion_for(auxiliary_gain=0.5, **options), levels, targets)
    alone = both_heads(2)[:3]
    top = {"dynamic_k_candidates": 20}
    lead, lead_gradient = run(criterion_for(assigner=assigner, **top), alone, targets)
    torch.testing.assert_close(gradient[: len(lead_gradient)], lead_gradient)
    doubled, doubled_gradient = run(criterion_for(auxiliary_gain=1.0, **options), both_heads(2), targets)
    torch.testing.assert_close(doubled.total - lead.total, 2 * (total.total - lead.total))
    torch.testing.assert_close(doubled_gradient[len(lead_gradient) :], 2 * gradient[len(lead_gradient) :])
    assert set(total.items) == {"box", "obj", "cls"}
    torch.testing.assert_close(sum(total.items.values()) * 2, total.total.detach())


@EACH
@pytest.mark.parametrize("num_classes", [1, 5])
def test_without_objects_both_heads_learn_objectness(mode, num_classes):
    levels = both_heads(2, num_classes)
    output, _ = run(criterion_for(num_classes, deep=True, auxiliary=mode), levels, random_targets([0, 0], SIZE, 5))
    assert output.items["box"] == output.items["cls"] == 0 < output.items["obj"]
    assert all((level.grad[..., 4] > 0).all() for level in levels)


def test_dynamic_k_follows_the_auxiliary_head():
    assert criterion_for().assigner == SimOtaAssigner(top_candidates=10)
    assert criterion_for(deep=True).assigner == SimOtaAssigner(top_candidates=20)
    asked = criterion_for(deep=True, dynamic_k_candidates=7, auxiliary="independent")
    assert asked.assigner == SimOtaAssigner(top_candidates=7)
    assert asked.auxiliary == IndependentAssigner(SimOtaAssigner(top_candidates=7))


@EACH
def test_warming_up_keeps_the_kind_of_labels(mode):
    criterion = criterion_for(deep=True, auxiliary=mode, anchor_t=3.0, autobalance=True)
    warm = warmup_criterion(criterion)
    expected = {
        "independent": IndependentAssigner(AnchorRatioAssigner(3.0)),
        "lead-guided": LeadGuidedAssigner(),
        "coarse-to-fine": CoarseToFineAssigner(AnchorRatioAssigner(3.0, reach=1.0)),
    }
    assert warm.assigner == AnchorRatioAssigner(3.0) and warm.auxiliary == expected[mode]
    assert warm.balance is criterion.balance
    assert warmup_criterion(criterion_for()).auxiliary is None


def test_the_lead_alone_is_judged_with_a_plain_assigner():
    levels, targets = both_heads(2), random_targets([6, 9], SIZE, 5)
    judged = criterion_for(deep=True).with_assigner(AnchorRatioAssigner())(output_of(levels), targets, SIZE)
    expected = criterion_for(assigner="anchor_ratio")(AnchorOutput(tuple(levels[:3])), targets, SIZE)
    torch.testing.assert_close(judged.total, expected.total)


def test_bound_is_one_for_fine_cells_and_falls_to_zero():
    """From the middle of the cell: 0.5 is its border, 1 the farthest fine candidate, 1.5 the farthest coarse one."""
    x = torch.tensor([0.5, 0.0, 1.5, -0.5, 1.75, -0.75, 2.0, -1.0, 7.0])
    expected = [1, 1, 1, 1, 0.5, 0.5, 0, 0, 0]
    assert coarse_bound(torch.stack((x, torch.full_like(x, 0.7)), 1)).tolist() == expected
    assert coarse_bound(torch.stack((torch.full_like(x, 0.7), x), 1)).tolist() == expected


def test_only_additional_coarse_cells_are_bounded():
    """A large object of the size of an anchor, which every cell near it predicts well."""
    corners = torch.tensor([[70.4 - 373 / 2, 44.8 - 163, 70.4 + 373 / 2, 44.8 + 163]])  # centre in cell (2.2, 1.4)
    targets = Targets(corners, torch.tensor([2]), torch.tensor([0]), 1)
    gradients = []
    for bounded in (False, True):
        levels = [level.detach().fill_(0.0).requires_grad_() for level in both_heads(1)]
        run(criterion_for(deep=True, assigner="anchor_ratio", auxiliary_bound=bounded), levels, targets)
        gradients.append(levels)
    changed = [
        (i, *cell)
        for i, (free, bound) in enumerate(zip(*gradients, strict=True))
        for cell in (free.grad != bound.grad).nonzero().tolist()
    ]
    criterion = criterion_for(deep=True, assigner="anchor_ratio")
    fine, coarse = matches_of(criterion, gradients[0], targets)
    extra = {row[:5] for row in coarse} - {row[:5] for row in fine}
    assert {(i - 3, b, a, r, c) for i, b, a, r, c, channel in changed if channel == 4} <= extra and changed
    assert {cell[-1] for cell in changed} == {4}
    for i, b, a, r, c, _ in changed:  # a lower target pushes the logit down
        assert gradients[1][i].grad[b, a, r, c, 4] > gradients[0][i].grad[b, a, r, c, 4]


@pytest.mark.parametrize(
    ("deep", "options", "words"),
    [
        (
            False,
            {"auxiliary": "independent"},
            "loss.auxiliary = 'independent'.*no auxiliary head.*model.head.auxiliary",
        ),
        (False, {"auxiliary_gain": 0.5}, "loss.auxiliary_gain = 0.5"),
        (False, {"auxiliary_bound": True}, "loss.auxiliary_bound"),
        (True, {"auxiliary_bound": True, "auxiliary": "lead-guided"}, "coarse-to-fine"),
        (True, {"auxiliary_gain": 0.0}, "greater than 0"),
    ],
)
def test_options_without_effect_are_refused(deep, options, words):
    with pytest.raises((ConfigError, ValueError), match=f"(?s){words}"):
        criterion_for(deep=deep, **options)


def test_a_model_without_its_auxiliary_output_is_refused():
    with pytest.raises(ConfigError, match="auxiliary output"):
        criterion_for(deep=True)(AnchorOutput(tuple(both_heads(1)[:3])), random_targets([2], SIZE, 5), SIZE)
