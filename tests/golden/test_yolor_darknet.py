"""Scaled-YOLOv4 and YOLOR in darknet's form against the published implementation: names, cost, outputs, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import MODELS
from cloverleaf.models.cost import measure
from cloverleaf.models.detector import Detector
from cloverleaf.weights import import_state_dict
from cloverleaf.weights.importer import published_shapes
from cloverleaf.weights.importers.yolor_darknet import NAMES
from cloverleaf.weights.importers.yolor_darknet_table import darknet_table
from golden.compare import assert_matches, filled_state
from golden.test_yolov7_models import published_decoding
from golden.yolor_training import Numbers, check_step, golden_image

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
    numbers = golden(f"yolor/{name.removesuffix('-darknet').replace('-', '_')}_train")
    model = filled(name, numbers)
    loss = LossConfig(
        assigner="anchor_ratio", gains="yolor", cell_ties="lower", objectness_iou_ratio=1.0, box=0.05, **GAINS[name]
    )
    table = darknet_table(model.spec)
    check_step(model, numbers, loss, eps=1e-4, names=lambda keys: {key: table.published(key) for key in keys})
