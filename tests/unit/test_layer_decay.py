"""Layer-wise decay of the learning rate: the rule for any backbone, and the optimiser that follows it."""

import pytest
import torch

import cloverleaf
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.training.config import OptimizerConfig, ScheduleConfig
from cloverleaf.training.config_io import from_dict
from cloverleaf.training.layer_decay import backbone_depths, rate_scales
from cloverleaf.training.optim import build_optimizer, follow, weights_rate
from cloverleaf.training.schedule import Schedule


def depths(name):
    model = empty_detector(find_spec(name))
    found = backbone_depths(model.backbone, model.spec.backbone)
    assert found.keys() == dict(model.backbone.named_parameters()).keys()
    return found


@pytest.mark.parametrize("name", ["csp-tiny", "elan-tiny", "efficient-rep"])
def test_stem_and_stages_of_a_backbone_are_its_layers(name):
    found = depths(f"{name}+rep-pan+dense")
    order = ["stem", "stage4", "stage8", "stage16", "stage32"]
    assert all(depth == order.index(key.partition(".")[0]) for key, depth in found.items())
    assert list(found.values()) == sorted(found.values())


@pytest.mark.parametrize(
    ("name", "last", "some"),
    [
        ("resnet18", 8, {"body.conv1.weight": 0, "body.layer1.1.conv1.weight": 2, "body.layer4.1.bn2.bias": 8}),
        ("convnext_atto", 12, {"body.stem_0.weight": 0, "body.stages_0.blocks.1.gamma": 2}),
    ],
)
def test_backbones_of_timm_are_numbered_by_timm(name, last, some):
    found = depths(f"timm/{name}+rep-pan+dense")
    assert set(found.values()) == set(range(last + 1))
    assert {key: found[key] for key in some} == some


def test_where_timm_has_no_numbering_the_parts_are_layers(monkeypatch):
    import timm.models.resnet as resnet

    monkeypatch.delattr(resnet.ResNet, "group_matcher")
    found = depths("timm/resnet18+rep-pan+dense")
    assert found["body.conv1.weight"] == 0 and found["body.layer4.1.bn2.bias"] == 5  # conv1, bn1, four layers


def test_optimiser_follows_the_plan_and_resumes_exactly():
    torch.manual_seed(0)
    model = cloverleaf.create_model("csp-tiny+rep-pan+dense", num_classes=2, backbone={"width": 0.25})
    config = OptimizerConfig(lr=0.1, layer_decay=0.5)
    schedule = Schedule(ScheduleConfig(warmup_min_iterations=0, warmup_epochs=1), config, 4, 4, 8)
    scales, names = rate_scales(model, 0.5), {id(p): name for name, p in model.named_parameters()}
    assert scales["backbone.stem.conv.weight"] == 0.5**5 and scales["backbone.stage32.0.conv.weight"] == 0.5
    optimizer = build_optimizer(model, config, 5e-4)
    for iteration in (2, 9):
        plan = schedule.at(iteration)
        follow(optimizer, plan)
        assert weights_rate(optimizer) == pytest.approx(plan.lr[1])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                rate = plan.lr[2 if name.endswith("bias") else 0]
                assert group["lr"] == pytest.approx(rate * scales[name]) and group["momentum"] == plan.momentum
                assert group["weight_decay"] == (5e-4 if parameter.ndim > 1 else 0)
    again = build_optimizer(model, config, 5e-4)
    again.load_state_dict(optimizer.state_dict())
    assert again.state_dict() == optimizer.state_dict()
    follow(again, schedule.at(10))
    follow(optimizer, schedule.at(10))
    assert again.state_dict() == optimizer.state_dict()


def test_without_decay_the_groups_are_the_three_of_before():
    model = cloverleaf.create_model("csp-tiny+rep-pan+dense", backbone={"width": 0.25})
    optimizer = build_optimizer(model, OptimizerConfig(), 5e-4)
    state = optimizer.state_dict()
    assert len(state["param_groups"]) == 3
    for group in state["param_groups"]:  # as a checkpoint of an older version has them
        del group["kind"], group["lr_scale"]
    optimizer.load_state_dict(state)
    plan = Schedule(ScheduleConfig(), OptimizerConfig(), 4, 400, 8).at(100)
    follow(optimizer, plan)
    assert tuple(group["lr"] for group in optimizer.param_groups) == plan.lr
    assert weights_rate(optimizer) == plan.lr[1]


@pytest.mark.parametrize("value", [0, 1.1, "much"])
def test_impossible_values_are_refused(value):
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay"):
        from_dict({"optimizer": {"layer_decay": value}})
