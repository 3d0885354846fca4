"""Sizes that a model cannot be trained with are refused before the first step."""

from __future__ import annotations

import pytest

from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import create_model
from cloverleaf.training.input_size import check_training_size

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
