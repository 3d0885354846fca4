"""ATSS and the task-aligned assigner against the published numbers."""

import numpy as np
import pytest
import torch

from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from golden.gold_yolo_cases import STRIDES, load_case, raw_of

CASES = [
    ("atss", AtssAssigner()), ("tal13", TaskAlignedAssigner()), ("tal26_ab", TaskAlignedAssigner(26)),
    ("tal13_ltrb", TaskAlignedAssigner()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "assigner"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_positives_and_scores(golden, name, assigner, dtype):
    numbers = golden("gold_yolo/assigners")
    case = load_case(numbers, name)
    if name == "tal26_ab":
        aided = case.aided("loss0ab")
        logits, boxes = aided.logits, case.aided_px(aided)
    else:
        raw = raw_of(case, prefix="loss0l" if name == "tal13_ltrb" else "loss0", dfl=name != "tal13_ltrb")
        logits, boxes = raw.logits, case.boxes_px(raw.distances)
    found = assigner(logits.to(dtype), boxes.to(dtype), case.targets, STRIDES, case.size_hw)

    positions = torch.stack((found.image_index, found.position), 1)
    assert positions.tolist() == numbers[f"{name}.pos"].tolist()
    assert case.targets.labels[found.target_index].tolist() == numbers[f"{name}.label"].tolist()
    np.testing.assert_allclose(case.targets.boxes_xyxy[found.target_index], numbers[f"{name}.box"], atol=1e-4)
    tolerance = 1e-5 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(found.score, numbers[f"{name}.score"], atol=tolerance)
    np.testing.assert_allclose(found.score.sum(), numbers[f"{name}.score_sum"], rtol=tolerance)
    assert found.score.dtype == dtype
