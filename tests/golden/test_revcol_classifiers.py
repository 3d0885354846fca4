"""RevCol's classifiers: logits, and the published counts of parameters and operations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cloverleaf.models.catalog import MODELS, empty_detector, find_spec
from cloverleaf.models.cost import measure
from golden.compare import assert_matches
from golden.fill import image
from golden.revcol_cases import fill_module, published_names

# Parameters with one head of 1000 classes, parameters of the backbone, (size, multiply-accumulates in 10^9) ...
PUBLISHED = {
    "tiny": (30_456_168, 29_942_144, ((224, 4.517), (384, 13.275))),
    "small": (60_568_424, 60_054_400, ((224, 9.044),)),
    "base": (138_616_408, 138_038_256, ((224, 16.585),)),
    "large": (273_095_400, 272_068_352, ((224, 39.306),)),
    "xlarge": (833_807_400, 832_010_816, ((224, 120.206),)),
    "huge": (2_157_600_160, 2_154_713_400, ((640, 2535.6),)),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_operations(size):
    spec = find_spec(f"revcol-{size}")
    whole, backbone, operations = PUBLISHED[size]
    idle = sum(spec.backbone.channels)  # the published first column has scales, which nothing is multiplied with
    for side, billions in operations:
        cost = measure(spec, (side, side))
        assert cost.params + idle == whole
        assert sum(stage.params for stage in cost.stages if stage.name.startswith("backbone.")) + idle == backbone
        np.testing.assert_allclose(cost.flops / 2e9, billions, rtol=1e-3)
    assert operations[0][0] == MODELS[spec.name].image_size


def test_logits_and_features_of_tiny(golden):
    numbers = golden("revcol/revcol_tiny_eval_96x96")
    spec = find_spec("revcol-tiny")
    model = empty_detector(replace(spec, backbone=replace(spec.backbone, memory="plain")))
    head = {f"head.{ours}.{leaf}": f"cls.classifier.{i}.{leaf}"
            for i, ours in enumerate(("norm", "linear")) for leaf in ("weight", "bias")}  # fmt: skip
    fill_module(model, published_names(spec.backbone, "backbone.") | head)
    images = torch.from_numpy(image(96, 96, 1, 0))
    with torch.no_grad():
        columns = model.backbone.forward_columns(images, (0, 1, 2))
        for name, value in (("logits", model(images).logits), ("stem", model.backbone.stem(images))):
            assert assert_matches(value, numbers, name) < 1e-5
    for n, maps in enumerate(columns):
        for k, value in enumerate(maps):
            assert_matches(value, numbers, f"col{n}.c{k}")
