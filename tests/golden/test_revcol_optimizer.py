"""RevCol's layers, learning-rate scales, weight decay and drop-path rates against the published ones."""

import numpy as np
import pytest

from cloverleaf.backbones.revcol.backbone import drop_rates
from cloverleaf.backbones.revcol.variants import PUBLISHED
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.training.config import OptimizerConfig
from cloverleaf.training.layer_decay import backbone_depths, rate_scales
from cloverleaf.training.optim import build_optimizer, parameter_groups
from cloverleaf.weights.importers import revcol_table as table

TINY = "revcol-tiny+none+classify"


@pytest.fixture(scope="module")
def model():
    return empty_detector(find_spec(TINY))


@pytest.fixture
def published(golden):
    """Numbers by our name of each tensor of the backbone that we have."""
    numbers = golden("revcol/optimizer_groups_and_drop_path")
    ours = {theirs: name for name, theirs in table.backbone(PUBLISHED["revcol-tiny"]) if name}
    found = [(ours.get(str(name), ""), row) for row, name in enumerate(numbers["tiny.names"])]
    rows = {name: row for name, row in found if name}
    assert len(rows) == 468 - 4 - 4  # without the head, and the scales of the first column
    return lambda key: {name: numbers[f"tiny.{key}"][row] for name, row in rows.items()}


def test_layer_ids_and_scales_of_the_learning_rate(published, model):
    depths = {f"backbone.{name}": d for name, d in backbone_depths(model.backbone, model.spec.backbone).items()}
    assert depths == published("layer_id")
    for decay in (0.9, 0.8):
        scales, expected = rate_scales(model, decay), published(f"ld{decay}.lr_scale")
        heads = {name for name in scales if not name.startswith("backbone.")}
        assert heads and all(scales[name] == 1 for name in heads)
        assert expected.keys() == scales.keys() - heads
        np.testing.assert_allclose([scales[name] for name in expected], list(expected.values()), rtol=1e-12)


def test_depth_of_blocks(golden, model):
    depths, matrix = backbone_depths(model.backbone, model.spec.backbone), []
    for j in range(4):
        blocks = [(k, i) for k, count in enumerate(model.spec.backbone.layers) for i in range(count)]
        matrix.append([depths[f"columns.{j}.levels.{k}.blocks.{i}.layer_scale"] for k, i in blocks])
    np.testing.assert_array_equal(
        np.transpose(matrix), golden("revcol/optimizer_groups_and_drop_path")["tiny.depth_matrix"]
    )


def test_weight_decay_is_that_of_published_detectors(published, model):
    """Which differs from that of published classifiers in the reversible scales only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(parameter)] for parameter in parameter_groups(model)[1]}
    expected = {name for name, decay in published("weight_decay").items() if decay}
    assert decayed - {"head.linear.weight"} == {name for name in expected if ".scales." not in name}
    assert len(expected - decayed) == 3 * 4


def test_groups_of_the_optimiser(model):
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", lr=1e-3, layer_decay=0.9), 0.05)
    assert len(optimizer.param_groups) == 3 * 15  # weights, norms and biases of stem, 13 depths and head
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.05}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_drop_path_rates(golden, size):
    numbers, spec = golden("revcol/optimizer_groups_and_drop_path"), PUBLISHED[f"revcol-{size}"]
    assert spec.drop_path == float(numbers[f"{size}.max"])
    np.testing.assert_array_equal(np.concatenate(drop_rates(spec.drop_path, spec.layers)), numbers[f"{size}.rates"])
