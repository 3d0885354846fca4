"""Losses, their parts and gradients against the published numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.dense_config import DenseLossConfig, DistillationConfig
from cloverleaf.losses.distillation import Lesson, distillation_weight
from cloverleaf.structures import DenseOutput
from golden.compare import assert_matches
from golden.gold_yolo_cases import STRIDES, Case, load_case, raw_of

BASE = ("atss_giou_dfl", "tal_giou_dfl", "tal_siou_nodfl", "atss_siou_nodfl", "empty_tal")
DISTILLED = ("distill_m_e0", "distill_l_e150", "distill_l_feat", "distill_ns_e0", "distill_ns_e250_siou")


def criterion_of(name: str, case: Case, **options) -> DenseCriterion:
    """Of one process with the whole batch."""
    config = DenseLossConfig(iou="siou" if "siou" in name else "giou", nominal_batch=case.batch)
    assigner = AtssAssigner() if name.startswith("atss") else TaskAlignedAssigner()
    return DenseCriterion(config, strides=STRIDES, assigner=assigner, **options)


def typed(raw: DenseOutput, dtype: torch.dtype) -> DenseOutput:
    """As leaves that gather gradients."""
    values = [v if v is None else v.to(dtype).requires_grad_() for v in (raw.logits, raw.distances, raw.direct)]
    return DenseOutput(*values)


def check(numbers, name, output, leaves, tolerance):
    """Loss, items in the published order, and gradients; of the class scores by the probabilities."""
    items = output.items
    parts = [
        items["box"], items.get("dfl", 0) + items.get("distill_dfl", 0), items["cls"] + items.get("distill_cls", 0),
        items.get("distill_feature", 0),
    ]  # fmt: skip
    expected = numbers[f"{name}.items"]
    np.testing.assert_allclose([float(part) for part in parts[: len(expected)]], expected, rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(output.total.item(), numbers[f"{name}.loss"], rtol=tolerance)
    np.testing.assert_allclose(sum(items.values()).item(), numbers[f"{name}.loss"], rtol=tolerance)
    output.total.backward()
    for key, leaf in leaves.items():
        gradient = leaf.grad.double()
        if key == "cls":
            p = leaf.detach().double().sigmoid()
            gradient = gradient / (p * (1 - p))
        assert_matches(gradient, numbers, f"{name}.grad.{key}", tolerance)
        np.testing.assert_allclose(gradient.norm(), numbers[f"{name}.grad.{key}.norm"], rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", BASE)
def test_base(golden, name, dtype):
    numbers = golden("gold_yolo/losses")
    case = load_case(numbers, name)
    raw = typed(raw_of(case, prefix="loss0l", dfl=False) if "nodfl" in name else raw_of(case), dtype)
    output = criterion_of(name, case)(raw, case.targets, case.size_hw)
    leaves = {"cls": raw.logits, "reg": raw.distances}
    check(numbers, name, output, leaves, 1e-5 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["ab_giou", "ab_siou"])
def test_anchor_branch_adds_its_own_loss(golden, name, dtype):
    """The published numbers are those of the branch alone: the sum with the base loss, less the base loss."""
    numbers = golden("gold_yolo/losses")
    case = load_case(numbers, name)
    raw, aided = typed(raw_of(case), dtype), case.aided("loss0ab")
    logits, boxes = (value.to(dtype).requires_grad_() for value in (aided.logits, aided.boxes_cxcywh))
    aided = replace(aided, logits=logits, boxes_cxcywh=boxes)
    alone = criterion_of(name, case)(raw, case.targets, case.size_hw)
    criterion = criterion_of(name, case, aided_assigner=TaskAlignedAssigner(26))
    both = criterion(replace(raw, aided=aided), case.targets, case.size_hw)
    items = {key: both.items[key] - alone.items[key] for key in both.items}
    output = replace(both, total=both.total - alone.total, items=items)
    check(numbers, name, output, {"cls": logits, "reg": boxes}, 1e-5 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", DISTILLED)
def test_distillation(golden, name, dtype):
    numbers = golden("gold_yolo/losses")
    case = load_case(numbers, name)
    epoch, epochs, temperature, cls, dfl = (float(v) for v in numbers[f"{name}.hyper"])
    raw = typed(raw_of(case, direct="_ns_" in name), dtype)
    leaves = {"cls": raw.logits, "reg": raw.distances}
    if raw.direct is not None:
        leaves["lrtb"] = raw.direct
    maps = None
    if feature := name.endswith("feat"):
        own = [value.to(dtype).requires_grad_() for value in case.maps("loss0.sf")]
        maps = own, [value.to(dtype) for value in case.maps("loss0.tf")]
        leaves |= {"feat0": own[0], "feat2": own[2]}
    options = DistillationConfig(temperature=temperature, cls=cls, dfl=dfl, feature=10.0 * feature, scale_classes=False)
    teacher = DenseOutput(case.logits("loss0.teacher.cls", -1.5).to(dtype), case.bins("loss0.teacher.reg").to(dtype))
    lesson = Lesson(teacher, distillation_weight(epoch / epochs), maps)
    output = criterion_of(name, case, distillation=options)(raw, case.targets, case.size_hw, lesson)
    check(numbers, name, output, leaves, 1e-5 if dtype == torch.float64 else 1e-4)


def test_distillation_weight(golden):
    expected = golden("gold_yolo/schedules")["distill_decay"]
    np.testing.assert_allclose([distillation_weight(epoch / 300) for epoch in range(300)], expected, rtol=1e-12)
