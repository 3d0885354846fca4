"""Scaled-YOLOv4 and YOLOR in darknet's form against the published implementation: names, cost, outputs, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import MODELS
from cloverleaf.models.cost import measure
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.weights import export_state_dict, import_state_dict
from cloverleaf.weights.importer import published_shapes
from cloverleaf.weights.importers.yolor_darknet import NAMES
from cloverleaf.weights.importers.yolor_darknet_table import darknet_table
from golden.compare import assert_matches, filled_state
from golden.fill import image
from golden.test_yolov7_models import published_decoding
from golden.yolor_cases import targets_of

Numbers = dict[str, np.ndarray]
KEYS = Path(__file__).parent / "yolor" / "keys"
# Elements of the published list, parameters, implicit ones of them, entries of the state dict, GFLOPs at 640 and 1280.
FACTS = {
    "yolor-csp": (188, 52_923_994, 2_557, 684, 120.24, 480.96),
    "yolor-csp-x": (216, 99_754_058, 3_005, 816, 221.88, 887.54),
    "yolor-p6-darknet": (235, 37_265_016, 2_812, 862, 81.28, 325.12),
    "yolor-w6-darknet": (235, 79_873_400, 3_580, 862, 113.16, 452.65),
    "yolov4-csp": (176, 52_921_437, 0, 678, 120.24, 480.96),
    "yolov4-csp-x": (204, 99_751_053, 0, 810, 221.88, 887.54),
    "yolov4-p6": (305, 127_585_200, 0, 1214, 179.25, 717.02),
    "yolov4-p7": (366, 287_566_300, 0, 1462, 284.15, 1136.60),
}
# Elements of the list that are not the output of one of our convolutions: our module.
PLACES = {
    "yolor-csp": {4: "backbone.stem", 109: "neck.spp.pool", 172: "head.levels.0.add", 174: "head.levels.0.multiply"},
    "yolor-p6-darknet": {
        0: "backbone.stem.0", 111: "neck.spp.pool", 213: "head.levels.0.add", 215: "head.levels.0.multiply",
    },
}  # fmt: skip
GAINS = {"yolor-csp": {"cls": 0.3, "obj": 0.7}, "yolor-p6-darknet": {"cls": 0.5, "obj": 1.0}}


def keys_of(name: str) -> str:
    return (KEYS / f"{name.removesuffix('-darknet').replace('-', '_')}.txt").read_text()


def filled(name: str, numbers: Numbers) -> Detector:
    return import_state_dict(name, filled_state(keys_of(name), {}, float(numbers["gain"])))


def golden_image(numbers: Numbers) -> Tensor:
    batch, _, height, width, seed = (int(n) for n in numbers["input"])
    return torch.from_numpy(image(height, width, batch, seed))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_cost_are_the_published_ones(name: str) -> None:
    length, params, implicit, entries, *gflops = FACTS[name]
    spec = MODELS[name].spec
    shapes = published_shapes(spec)
    assert [f"{key}\t{shape}" for key, shape in shapes.items()] == [
        line.rpartition("\t")[0] for line in keys_of(name).splitlines()
    ]
    assert (len(shapes), darknet_table(spec).length) == (entries, length)
    assert sum(int(np.prod(shape)) for key, shape in shapes.items() if "implicit" in key) == implicit
    cost = measure(spec, (640, 640))
    assert cost.params == params
    assert [cost.flops / 1e9, 4 * cost.flops / 1e9] == pytest.approx(gflops, abs=0.0051)
    if name == "yolov4-p7":
        assert cost.flops / 1e9 * (1536 / 640) ** 2 == pytest.approx(1636.7, abs=0.051)


@pytest.mark.parametrize("name", PLACES)
def test_outputs_and_tapped_elements(name: str, golden: Callable[[str], Numbers]) -> None:
    numbers = golden(f"yolor/{name.removesuffix('-darknet').replace('-', '_')}_eval")
    model = filled(name, numbers)
    places = {int(index): path for path, index in darknet_table(model.spec).rows.items()} | PLACES[name]
    outputs: dict[int, Tensor] = {}
    tapped = sorted({int(key.split(".")[2]) for key in numbers if key.startswith("eval.layer.")})
    for index in tapped:
        model.get_submodule(places[index]).register_forward_hook(_keep(outputs, index))
    images = golden_image(numbers)
    with torch.no_grad():
        raw = model(images)
    assert len(outputs) == len(tapped) >= 16
    errors = [assert_matches(outputs[index], numbers, f"eval.layer.{index}") for index in tapped]
    errors += [assert_matches(level, numbers, f"eval.raw.{i}") for i, level in enumerate(raw.levels)]
    decoded = published_decoding(model.decode(raw, tuple(images.shape[2:]))[0], raw)
    errors.append(assert_matches(decoded, numbers, "eval.decoded"))
    index, value = numbers["eval.decoded.index"], numbers["eval.decoded.value"]
    chosen = index % decoded.shape[-1] >= 4
    assert np.abs(decoded.numpy().reshape(-1)[index] - value)[chosen].max() <= 1e-4
    print(f"{name}: largest relative error {max(errors):.1e}")


def _keep(outputs: dict[int, Tensor], index: int) -> Callable[[Any, Any, Tensor], None]:
    return lambda _module, _inputs, output: outputs.__setitem__(index, output.clone())


@pytest.mark.parametrize("name", ["yolor-p6-darknet", pytest.param("yolor-csp", marks=pytest.mark.slow)])
def test_training(name: str, golden: Callable[[str], Numbers]) -> None:
    """One step in float64: raw outputs, statistics, loss and gradients; then evaluation with those statistics."""
    numbers = golden(f"yolor/{name.removesuffix('-darknet').replace('-', '_')}_train")
    model = filled(name, numbers).double().train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.03)}
    before = export_state_dict(model)
    before = {key: value.clone() for key, value in before.items() if ".running_" in key}
    for norm in norms:  # keeps the statistics of the batch, of which the published ones took 3 %
        norm.momentum = 1.0
    images = golden_image(numbers).double()
    raw = model(images)
    for i, level in enumerate(raw.levels):
        assert_matches(level, numbers, f"train.raw.{i}", 1e-5)
    state = export_state_dict(model)
    after = {key.removeprefix("train.after."): v for key, v in numbers.items() if key.startswith("train.after.")}
    assert len(after) == 12
    for key, value in after.items():
        assert_matches((0.97 * before[key] + 0.03 * state[key])[:64], {key: value}, key, 1e-5)
    _check_loss_and_gradients(name, model, raw, numbers)
    model.eval()
    with torch.no_grad():
        raw = model(images[:1])
        for i, level in enumerate(raw.levels):
            assert_matches(level, numbers, f"cal.raw.{i}", 1e-5)
        decoded = published_decoding(model.decode(raw, tuple(images.shape[2:]))[0], raw)
        assert_matches(decoded, numbers, "cal.decoded", 1e-5)


def _check_loss_and_gradients(name: str, model: Detector, raw: Any, numbers: Numbers) -> None:
    """The loss is computed in float32, from there back everything in float64."""
    batch, _, height, width, _ = (int(n) for n in numbers["input"])
    config = LossConfig(
        assigner="anchor_ratio", gains="yolor", cell_ties="lower", objectness_iou_ratio=1.0, box=0.05, **GAINS[name]
    )
    criterion = build_criterion(model, config, image_size=max(height, width))
    output = criterion(raw, targets_of(numbers["loss.targets"], (height, width), batch), (height, width))
    items = [output.items[key].item() for key in ("box", "obj", "cls")]
    np.testing.assert_allclose([*items, sum(items)], numbers["loss.items_box_obj_cls_total"], rtol=1e-5)
    np.testing.assert_allclose(output.total.item(), numbers["loss.total"][0], rtol=1e-5)
    output.total.backward()
    table = darknet_table(model.spec)
    gradients = {table.published(f"{key}"): p.grad for key, p in model.named_parameters()}
    stored = sorted({key.removeprefix("grad.") for key in numbers if key.startswith("grad.") and "implicit" in key})
    assert len(stored) == 2 * len(raw.levels)
    for key in stored:
        _assert_near(gradients[key].flatten(), numbers[f"grad.{key}"])
    first = next(key for key in numbers if key.startswith("grad.") and key.endswith("Conv2d.weight.index"))
    key = first.removeprefix("grad.").removesuffix(".index")
    _assert_near(gradients[key].flatten()[numbers[first]], numbers[f"grad.{key}.value"])
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert norm == pytest.approx(float(numbers["grad.global_l2"]), rel=1e-3)


def _assert_near(gradient: Tensor, expected: np.ndarray) -> None:
    assert np.abs(gradient.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
