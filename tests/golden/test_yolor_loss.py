"""Assignments, losses and gradients of YOLOR's loss against the numbers of both published implementations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cloverleaf.errors import ConfigError
from cloverleaf.losses.anchor_gains import gain_scales, level_balance
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.criteria import AnchorCriterion
from cloverleaf.models.criterion import build_assigner
from cloverleaf.structures import AnchorOutput
from golden.yolor_cases import loss_case

BOTH = ("both", "lower")  # ties: of the paper's form, of the darknet form
CASES = [(name, ties, name) for name in ("csp", "p6", "csp_focal", "csp_empty") for ties in BOTH]
CASES += [("csp_ties", "both", "csp_ties.paper"), ("csp_ties", "lower", "csp_ties.main")]


@pytest.mark.parametrize(("name", "ties", "prefix"), CASES)
def test_loss(golden, name, ties, prefix):
    numbers = golden("yolor/loss")
    case = loss_case(numbers, name)
    config = replace(case.config, cell_ties=ties)
    criterion = AnchorCriterion(
        config, anchors_px=case.anchors_px, strides=case.strides, num_classes=case.num_classes, image_size=640,
        assigner=build_assigner(config),
    )  # fmt: skip
    where = (case.targets, case.anchors_px, case.strides, case.size_hw)
    matches = criterion.assigner(case.levels, *where)
    output = criterion(AnchorOutput(case.levels), case.targets, case.size_hw)
    items = [output.items[key].item() for key in ("box", "obj", "cls")]
    np.testing.assert_allclose([*items, sum(items)], numbers[f"{prefix}.items"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(output.total.item(), numbers[f"{prefix}.loss"][0], rtol=1e-4)
    output.total.backward()
    for place, level in enumerate(case.levels):
        get = {key: numbers.get(f"{prefix}.{place}.{key}") for key in ("assign", "tbox", "ciou", "grad_pos")}
        rows = (
            matches.image_index,
            matches.anchor,
            matches.row,
            matches.column,
            case.targets.labels[matches.target_index],
        )
        found = torch.stack(rows, 1)[matches.level == place]
        np.testing.assert_array_equal(found, get["assign"].reshape(-1, 5))  # list order too
        index, value = numbers[f"{prefix}.{place}.grad.index"], numbers[f"{prefix}.{place}.grad.value"]
        gradient, limit = level.grad, 1e-4 * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(gradient.flatten()[index], value, rtol=0, atol=limit)
        assert abs(gradient.std(correction=0).item() - numbers[f"{prefix}.{place}.grad.std"]) < limit
        if len(found):
            check_positives(criterion, case, matches, place, get, limit)


def check_positives(criterion, case, matches, place, get, limit):
    """What each positive of a level is compared with, and its gradient."""
    on = matches.level == place
    cells = tuple(index[on] for index in (matches.image_index, matches.anchor, matches.row, matches.column))
    wanted = criterion._wanted_in_cells(case.targets, matches)[on]
    np.testing.assert_allclose(wanted, get["tbox"], rtol=1e-4, atol=1e-5)
    raw = torch.zeros(len(on), case.levels[0].shape[-1])
    raw[on] = case.levels[place].detach()[cells]
    _, ciou = criterion._box_loss(raw, criterion._wanted_in_cells(case.targets, matches), matches)
    np.testing.assert_allclose(ciou[on], get["ciou"], rtol=1e-4, atol=1e-5)
    gradient = case.levels[place].grad[cells][: len(get["grad_pos"]), :8]
    np.testing.assert_allclose(gradient, get["grad_pos"], rtol=0, atol=limit)


def test_gains_follow_levels_and_classes_and_not_the_size():
    for levels, objectness in ((3, 1.0), (4, 1.4), (5, 1.4)):
        share = 3 / levels
        scales = gain_scales("yolor", num_levels=levels, num_classes=20, image_size=1280)
        assert scales == pytest.approx((share, share * objectness, share / 4))
    assert gain_scales("yolov7", num_levels=4, num_classes=80, image_size=1280) == pytest.approx((0.75, 3.0, 0.75))
    assert level_balance("yolor", 4) == (4.0, 1.0, 0.4, 0.1)
    assert level_balance("yolor", 5) == (4.0, 1.0, 0.5, 0.4, 0.1)
    assert level_balance("yolov7", 4) == (4.0, 1.0, 0.25, 0.06)
    for rule in ("yolov7", "yolor"):
        with pytest.raises(ConfigError, match="no weights for 6 levels"):
            level_balance(rule, 6)
    assert LossConfig().gains == "yolov7" and LossConfig().cell_ties == "both"
