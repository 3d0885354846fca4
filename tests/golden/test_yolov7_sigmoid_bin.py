"""SigmoidBin against the published numbers; a head that has it is in test_yolov7_models.py."""

import pytest
import torch

from cloverleaf.ops.sigmoid_bin import bin_centres, decode_bins, sigmoid_bin_loss
from golden.compare import assert_matches

BINS = 21


def test_values_and_losses(golden):
    numbers = golden("yolov7/sigmoid_bin")
    logits, target = torch.from_numpy(numbers["pred"]), torch.from_numpy(numbers["target"])
    assert_matches(bin_centres(BINS), numbers, "bins", 1e-6)
    assert_matches(decode_bins(logits.sigmoid()), numbers, "forward_on_sigmoid")
    loss, value = sigmoid_bin_loss(logits, target)
    assert_matches(loss.mean(), numbers, "loss_no_regression")
    assert_matches(value, numbers, "result")
    loss, _ = sigmoid_bin_loss(logits, target, positive_weight=2.0, smoothing=0.1, regression=True)
    assert_matches(loss.mean(), numbers, "loss_regression_w2_smooth01")


@pytest.mark.parametrize("target", [-1.0, 0.0, 2.0, 4.0, 9.0])
def test_extreme_values_stay_in_range(target):
    logits = torch.tensor([[-1e4] * (BINS + 1), [0.0] * (BINS + 1), [1e4] * (BINS + 1)], requires_grad=True)
    loss, value = sigmoid_bin_loss(logits, torch.full((3,), target))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()
    assert ((value >= 0) & (value <= 4)).all()
    decoded = decode_bins(logits.sigmoid())
    assert ((decoded >= 0) & (decoded <= 4)).all()
