"""Implicit knowledge: where it starts, what learns, what is refused, and how options are read and kept."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.layers.implicit import (
    OPERATORS,
    Implicit,
    ImplicitOptions,
    absorbed,
    fold_into_previous,
    implicit_module,
)
from cloverleaf.layers.implicit.alignment import last_convolution
from cloverleaf.models.catalog import create_model, find_spec
from cloverleaf.models.cost import measure
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.training.config_io import nest
from cloverleaf.training.optim import parameter_groups
from cloverleaf.weights import export_state_dict

MODELLINGS: tuple[dict[str, Any], ...] = (
    {},
    {"modelling": "network", "prior": 8},
    {"modelling": "network", "activation": "silu"},
    {"modelling": "factorisation"},
    {"modelling": "factorisation", "sparsity": 0.5},
    {"modelling": "factorisation", "non_negative": True},
    {"modelling": "factorisation", "sparsity": 0.2, "non_negative": True, "atoms": 3},
)
TINY = {part: {"width": 0.125} for part in ("backbone", "neck", "head")}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("modelling", MODELLINGS, ids=lambda options: "-".join(map(str, options.values())) or "vector")
def test_starts_near_doing_nothing_and_learns(modelling: dict[str, Any], operator: Any) -> None:
    if operator == "inner" and "activation" in modelling:
        pytest.skip("refused")
    torch.manual_seed(0)
    module, x = implicit_module(ImplicitOptions(operator=operator, **modelling), 24), torch.randn(2, 24, 3, 5)
    y = module(x)
    nothing = {"gate": x / 2, "concatenate": torch.cat((torch.zeros_like(x), x), 1)}.get(operator, x)
    assert y.shape == nothing.shape and (y - nothing).abs().max() < 0.7
    flat = module(x.mean((2, 3)))
    assert flat.shape == (2, module.out_channels)
    if operator != "gate":  # all others are affine, and so agree with the mean
        torch.testing.assert_close(flat, y.mean((2, 3)))
    (y * torch.randn_like(y)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_vectors_start_as_published() -> None:
    torch.manual_seed(0)
    for operator, mean in (("add", 0.0), ("concatenate", 0.0), ("gate", 0.0), ("multiply", 1.0)):
        value = implicit_module(ImplicitOptions(operator=operator), 4096).value  # type: ignore[arg-type]
        assert value.shape == (1, 4096, 1, 1)
        assert value.mean().item() == pytest.approx(mean, abs=2e-3)
        assert value.std().item() == pytest.approx(0.02, rel=0.05)
    rows = implicit_module(ImplicitOptions(operator="inner", rows=6), 24).constant()
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), rtol=0, atol=0.3)  # a projection that keeps lengths


@pytest.mark.parametrize(
    ("name", "neck", "head"),
    [
        (
            "yolov7-tiny", {"align": "gate"},
            {"align": "add", "refine": "multiply", "anchor": "multiply", "offset": {"modelling": "factorisation"}},
        ),
        ("csp-tiny+fpn+dense", {"align": {"operator": "add", "modelling": "network"}}, {"refine": "add"}),
        ("csp-tiny+none+classify", None, {"task": "inner"}),
        ("csp-tiny+c2f-pan+multi", None, {"task": "add"}),
    ],
)  # fmt: skip
def test_all_else_starts_as_without(name: str, neck: Any, head: Any) -> None:
    """Pairs of runs with the same seed differ in implicit knowledge alone, which starts anywhere differently."""
    kept, own, after = [], [], []
    for implicit in (({"implicit": neck} if neck else {}, head), ({}, {"task": None} if "multi" in name else None)):
        torch.manual_seed(5)
        options = {"neck": implicit[0], "head": {"implicit": implicit[1]}}
        model = create_model(name, num_classes=3, backbone=TINY["backbone"], **options)
        mine = {id(p): p for module in model.modules() if isinstance(module, Implicit) for p in module.parameters()}
        own.append([p for p in mine.values() if p.dim() > 1])
        kept.append([p for p in model.parameters() if id(p) not in mine])
        after.append(torch.rand(1))
    assert len(own[0]) > len(own[1]) and after[0] == after[1]
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    starts = [(p.detach() - p.detach().mean()).flatten()[:2].tolist() for p in own[0]]
    assert all(a != b for a, b in itertools.combinations(starts, 2))


@torch.no_grad()
def test_some_channels_only() -> None:
    module = implicit_module(ImplicitOptions(operator="multiply", modelling="network"), 5, only=(1, 3))
    assert module.size == 2 and "only" not in module.state_dict()
    factor, x = module.constant(), torch.randn(1, 5, 2, 2)
    assert factor[[0, 2, 4]].tolist() == [1, 1, 1] and (factor[[1, 3]] == module.representation()).all()
    torch.testing.assert_close(module(x), x * factor[:, None, None])
    with pytest.raises(ValueError, match="limited"):
        implicit_module(ImplicitOptions(operator="gate"), 5, only=(1,))


@torch.no_grad()
def test_what_cannot_be_folded_is_refused() -> None:
    add, gate = (implicit_module(ImplicitOptions(operator=operator), 4) for operator in ("add", "gate"))
    padded = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    with pytest.raises(ValueError, match="padding holds no constant"):
        absorbed(padded, before=add)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(absorbed(padded, before=gate)(x), padded(gate(x)))
    with pytest.raises(ValueError, match="groups"):
        absorbed(nn.Conv2d(4, 4, 1, groups=2), before=add)
    with pytest.raises(ValueError, match="concatenation"):
        fold_into_previous("concatenate", torch.zeros(2), torch.zeros(4, 4), None)
    assert last_convolution(nn.Identity()) is None and last_convolution(nn.Sequential()) is None


def test_no_part_of_it_decays() -> None:
    network, atoms = {"operator": "add", "modelling": "network"}, {"operator": "inner", "modelling": "factorisation"}
    model = create_model(
        "yolov7-tiny", backbone=TINY["backbone"], neck={**TINY["neck"], "implicit": {"align": atoms}},
        head={**TINY["head"], "implicit": {"align": network, "refine": "multiply", "anchor": "multiply"}},
    )  # fmt: skip
    own = {id(p) for module in model.modules() if isinstance(module, Implicit) for p in module.parameters()}
    assert len(own) == 2 * 3 + 3 * (3 + 1 + 1)
    plain, decay, biases = ({id(p) for p in group} for group in parameter_groups(model))
    assert own <= plain and not own & (decay | biases)
    assert measure(model.spec, (64, 64)).params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "part", "implicit", "message"),
    [
        ("yolov7-tiny", "head", {"algn": "add"}, "no placement 'algn'.*Valid: align, refine, anchor, offset"),
        ("yolov7-tiny", "head", {"align": "plus"}, "no operator 'plus'.*add, multiply, concatenate, gate, inner"),
        ("yolov7-tiny", "head", {"align": {"modelling": "mf"}}, "no modelling 'mf'.*vector, network, factorisation"),
        ("yolov7-tiny", "head", {"align": {"oprator": "add"}}, "no option 'oprator'.*Valid: operator, modelling"),
        ("yolov7-tiny", "head", {"align": {"rows": 3}}, "head.implicit.align: rows = 3 has no effect.*'inner'"),
        ("yolov7-tiny", "head", {"align": {"prior": 3}}, "prior = 3 has no effect.*'network'"),
        ("yolov7-tiny", "head", {"align": {"operator": "inner", "rows": 0}}, "align.rows = 0 is not valid"),
        ("yolov7-tiny", "head", {"align": 7}, "align = 7 is not valid"),
        ("yolov7-tiny", "head", "add", "given by placement.*model.head.implicit.align=add"),
        ("yolov7-tiny", "head", {"refine": "concatenate"}, "refine = 'concatenate' cannot be folded.*wider"),
        ("yolov7-tiny", "head", {"refine": {"operator": "inner", "rows": 4}}, "refine.rows = 4 cannot be folded"),
        ("yolov7-tiny", "head", {"anchor": "add"}, "factor on the logits of width and height.*Valid operators: mult"),
        ("yolov7-tiny", "head", {"offset": "multiply"}, "addend on the logits of x and y.*Valid operators: add"),
        ("gold-yolo-n", "head", {"anchor": "multiply"}, "no placement 'anchor'.*Valid: align, refine"),
        ("gold-yolo-n", "head", True, "head.implicit = True is not valid"),
        ("gold-yolo-n", "neck", {"align": "concatenate"}, "neck.implicit.align = 'concatenate' cannot be folded"),
        ("yolov7-e6e", "neck", {"align": "add"}, "neck 'elan-pan'.*ExtendedElan.*one convolution"),
        ("revcol-tiny", "neck", {"align": "add"}, "neck.implicit is not possible here.*necks with merges"),
        ("yolov7-tiny", "backbone", {"align": "add"}, "backbone.implicit is not possible here"),
        ("mask-rcnn-resnet50-fpn", "head", {"refine": "add"}, "head.implicit is not possible.*anchor, classify"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(name: str, part: str, implicit: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        spec = find_spec(name).with_overrides({part: {"implicit": implicit}})
        spec.neck.build(spec.backbone.build().features)  # type: ignore[attr-defined]


def test_bins_have_no_size_to_refine() -> None:
    with pytest.raises(ConfigError, match="classified into 4 bins"):
        create_model("yolov7-tiny", **{**TINY, "head": {"bins": 4, "implicit": {"anchor": "multiply"}}})


def test_options_are_read_and_kept() -> None:
    spec = find_spec("yolov7-tiny")
    given = {
        "head.implicit.refine": "multiply",
        "head.implicit.refine.modelling": "network",
        "neck.implicit.align": "add",
    }
    changed = spec.with_overrides(nest(given))  # as --set gives them, one after the other
    assert changed.head.implicit.refine == ImplicitOptions(operator="multiply", modelling="network")
    written = changed.to_dict()
    assert written["neck"]["implicit"] == {"align": "add"}
    assert written["head"]["implicit"] == {"refine": {"operator": "multiply", "modelling": "network"}}
    assert DetectorSpec.from_dict(json.loads(json.dumps(written))) == changed
    assert changed.form == "training" and changed.as_deployed() == spec.as_deployed()
    with pytest.raises(ConfigError, match="head or neck in training form"):
        replace(changed, head=changed.head.deployed(), fused=True)
    # One function, one value: the released pair is true, nothing is false.
    released = {"align": "add", "refine": {"operator": "multiply", "modelling": "vector"}}
    assert spec.with_overrides({"head": {"implicit": released}}) == spec
    nothing = spec.with_overrides({"head": {"implicit": {"align": None, "refine": "none"}}})
    assert nothing.head.implicit is False and nothing.form == "deploy"


def test_names_of_released_vectors_stay_and_others_have_no_published_ones() -> None:
    names = [key for key in create_model("yolov7-tiny", **TINY).state_dict() if key.startswith("head.levels.0")]
    assert {"head.levels.0.add.value", "head.levels.0.multiply.value"} < set(names)
    for part, implicit in (("head", {"align": "multiply", "refine": "gate"}), ("neck", {"align": "add"})):
        model = create_model("yolov7-tiny", **{**TINY, part: {**TINY[part], "implicit": implicit}})
        with pytest.raises(CheckpointError, match="around the last convolutions of anchor heads only"):
            export_state_dict(model)
