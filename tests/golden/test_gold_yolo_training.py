"""A training step of gold-yolo-n with its anchor branch, from image to gradients, against the published numbers."""

import copy
from dataclasses import replace

import numpy as np
import torch

from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.dense_config import DenseLossConfig
from cloverleaf.weights import export_state_dict, import_state_dict
from golden.compare import assert_matches
from golden.fill import image
from golden.gold_yolo_cases import STRIDES, load_case
from golden.test_gold_yolo_models import published


def test_loss_and_gradients_of_the_whole_model(golden):
    numbers = golden("gold_yolo/e2e_gold_yolo-n_fuse_ab")
    state = published("n_fuse_ab", golden("gold_yolo/bn_state_gold_yolo-n")["running"])
    for key, value in state.items():
        if "cls_preds" in key and key.endswith("bias"):
            value.sub_(4)
        if "reg_preds_ab" in key:
            value.mul_(0.1)
            if key.endswith("bias"):
                value.view(3, 4)[:, 2:] += 1
    model = import_state_dict("gold-yolo-n", state).double().eval()
    case = load_case({**numbers, "e2e.targets": numbers["targets"]}, "e2e")
    raw = model(torch.from_numpy(image(128, 128, 3, 31)).double())
    config = DenseLossConfig(iou="siou", nominal_batch=case.batch)
    alone = DenseCriterion(config, strides=STRIDES, assigner=TaskAlignedAssigner())
    criterion = DenseCriterion(
        config, strides=STRIDES, assigner=TaskAlignedAssigner(), aided_assigner=TaskAlignedAssigner(26)
    )
    without = alone(replace(raw, aided=None), case.targets, case.size_hw).total.item()
    output = criterion(raw, case.targets, case.size_hw)
    np.testing.assert_allclose(without, numbers["loss_af"], rtol=1e-4)
    np.testing.assert_allclose(output.total.item() - without, numbers["loss_ab"], rtol=1e-4)
    items = [output.items[name].item() for name in ("box", "dfl", "cls")]
    np.testing.assert_allclose([*items, output.total.item()], [*numbers["items"], numbers["loss"]], rtol=1e-4)

    output.total.backward()
    gradients = copy.deepcopy(model)
    for own, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        own.data = parameter.grad
    named = export_state_dict(gradients)
    names = [name.removeprefix("gradnorm.") for name in numbers if name.startswith("gradnorm.")]
    assert len(names) == 8
    for name in names:
        assert_matches(named[name], numbers, f"grad.{name}")
        np.testing.assert_allclose(named[name].norm(), numbers[f"gradnorm.{name}"], rtol=1e-4)
