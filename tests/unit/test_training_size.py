"""Sizes that a model cannot be trained with are refused before the first step."""

from __future__ import annotations

import numpy as np
import pytest

from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import create_model
from cloverleaf.recipes.resolve import resolve
from cloverleaf.training.check import check_fit
from cloverleaf.training.input_size import check_training_size, multi_scale_size

NARROW = {"width": 0.125}


@pytest.mark.parametrize(
    ("name", "too_small", "enough"),
    [
        ("csp-tiny+elan-pan+dense", 32, 64),
        ("csp-tiny+gather-distribute+dense", 64, 96),  # the neck gathers at half the size of the coarsest map
    ],
)
def test_one_image_must_leave_more_than_one_value_per_channel(name: str, too_small: int, enough: int) -> None:
    model = create_model(name, num_classes=2, backbone=NARROW)
    with pytest.raises(ConfigError, match=f"image size {too_small} with one image a batch"):
        check_training_size(model, too_small, smallest_batch=1)
    check_training_size(model, too_small, smallest_batch=2)
    check_training_size(model, enough, smallest_batch=1)
    with pytest.raises(ConfigError, match="stride 32"):
        check_training_size(model, enough + 8, smallest_batch=2)


def test_every_size_that_multi_scale_draws_is_tried() -> None:
    sizes = [multi_scale_size(320, 32, share) for share in np.linspace(0, 1, 2000, endpoint=False)]
    assert sorted(set(sizes)) == list(range(160, 481, 32)) and multi_scale_size(320, 32, 0.5) == 320
    assert multi_scale_size(32, 32, 0) == 32 and multi_scale_size(640, 64, 0) == 320
    model = create_model("csp-tiny+gather-distribute+dense", num_classes=2, backbone=NARROW)
    with pytest.raises(ConfigError, match=r"image size 64 \(multi_scale draws it for 128\) with one image"):
        check_training_size(model, 128, smallest_batch=1, multi_scale=True)
    check_training_size(model, 128, smallest_batch=2, multi_scale=True)
    check_training_size(model, 192, smallest_batch=1, multi_scale=True)


def test_a_teacher_that_normalises_by_the_batch_must_fit_too() -> None:
    student = create_model("csp-tiny+elan-pan+dense", num_classes=2, backbone=NARROW)
    teacher = create_model("csp-tiny+gather-distribute+dense", num_classes=2, backbone=NARROW)
    check_training_size(student, 64, smallest_batch=1)
    with pytest.raises(ConfigError, match=r"gather-distribute\+dense has a single value"):
        check_training_size(student, 64, smallest_batch=1, teacher=teacher)


def test_limits_that_a_head_cannot_keep_are_refused_before_the_first_epoch() -> None:
    options, _ = resolve({"task": "instance", "evaluation": {"max_detections": 400, "ap_detections": 400}})
    model = create_model("csp-tiny+fpn+mask-rcnn", num_classes=2, backbone={**NARROW, "finest": 4})
    with pytest.raises(ConfigError, match="400 detections cannot count"):
        check_fit(options, model, None, images=8)
    check_fit(resolve({"task": "instance"})[0], model, None, images=8)
