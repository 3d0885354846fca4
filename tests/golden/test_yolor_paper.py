"""YOLOR in the form of its paper and as published with YOLOv7: names, counts, cost, outputs, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cloverleaf.deploy.fuse import fuse
from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import MODELS
from cloverleaf.models.cost import measure
from cloverleaf.models.detector import Detector
from cloverleaf.weights import export_state_dict, import_state_dict
from cloverleaf.weights.importer import published_shapes
from cloverleaf.weights.importers.yolor_yaml import NAMES
from cloverleaf.weights.importers.yolor_yaml_table import name_table
from golden.compare import assert_matches, filled_state
from golden.fill import image
from golden.test_yolov7_models import published_decoding
from golden.yolor_training import Numbers, check_step, golden_image

KEYS = Path(__file__).parent / "yolor" / "keys"
# Parameters, implicit ones of them, entries of the state dict, GFLOPs (2 x multiply-accumulates) at 640 and 1280 px.
PAPER = {
    "yolor-p6": (37_270_264, 2_812, 864, 81.28, 325.12),
    "yolor-w6": (79_880_952, 3_580, 864, 113.16, 452.65),
    "yolor-e6": (115_909_400, 4_220, 960, 170.53, 682.12),
    "yolor-d6": (151_782_680, 4_220, 1248, 233.61, 934.43),
    "yolor-ssss-s2d": (9_216_634, 1_661, 383, 16.04, 64.16),
}
# Parameters, entries, and GFLOPs at the published size by a counter that charges for normalisation (see entry 7).
WITH_YOLOV7 = {
    "yolor-csp-v7": (52_923_994, 686, 121.0),
    "yolor-csp-x-v7": (96_943_410, 830, 227.7),
    "yolor-p6-v7": (37_265_016, 864, 327.4),
    "yolor-w6-v7": (79_873_400, 864, 455.1),
    "yolor-e6-v7": (115_899_960, 960, 685.8),
    "yolor-d6-v7": (151_773_240, 1248, 938.9),
}


def keys_of(name: str) -> str:
    file = f"{name.removesuffix('-v7')}-yaml" if name.endswith("-v7") else name.replace("dwt", "s2d")
    return (KEYS / f"{file}.txt").read_text()


def filled(name: str, numbers: Numbers) -> Detector:
    spec: Any = MODELS[name].spec
    head, anchors = name_table(spec).head, np.array(spec.head.anchors_px, np.float32)
    strides = np.array([8 << i for i in range(len(anchors))], np.float32)[:, None, None]
    constants = {f"{head}anchors": anchors / strides, f"{head}anchor_grid": anchors}
    return import_state_dict(name, filled_state(keys_of(name), constants, float(numbers["gain"])))


def tap(model: Detector) -> dict[int, Tensor]:
    """The output of every published row with parameters, and of the first, once the model runs."""
    inside: dict[int, list[str]] = {}
    for path, place in name_table(model.spec).rows.items():
        inside.setdefault(int(place.partition(".")[0]), []).append(path)
    modules = {row: paths[0] if len(paths) == 1 else _around(paths) for row, paths in inside.items()}
    outputs: dict[int, Tensor] = {}
    for row, path in {0: "backbone.stem.0", **modules}.items():
        model.get_submodule(path).register_forward_hook(_keep(outputs, row))
    return outputs


def _around(paths: list[str]) -> str:
    """The module that all of them are in."""
    steps = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(step[0] for step in steps if len(set(step)) == 1)


def _keep(outputs: dict[int, Tensor], row: int) -> Callable[[Any, Any, Tensor], None]:
    return lambda _module, _inputs, output: outputs.__setitem__(row, output.clone())


@pytest.mark.parametrize("name", NAMES)
def test_names_and_cost_are_the_published_ones(name: str) -> None:
    spec, size = MODELS[name].spec, MODELS[name].image_size
    shapes = published_shapes(spec)
    expected = [line.rpartition("\t")[0] for line in keys_of(name).splitlines()]
    assert [f"{key}\t{shape}" for key, shape in shapes.items()] == expected
    cost = measure(spec, (640, 640))
    if name in WITH_YOLOV7:
        counted = (cost.flops + 8 * cost.norm_values) / 1e9 * (size / 640) ** 2
        assert (cost.params, len(shapes)) == WITH_YOLOV7[name][:2]
        assert counted == pytest.approx(WITH_YOLOV7[name][2], rel=4e-4)
        return
    params, implicit, entries, *gflops = PAPER[name.replace("dwt", "s2d")]
    assert (cost.params, len(shapes)) == (params, entries)
    assert sum(int(np.prod(shape)) for key, shape in shapes.items() if "implicit" in key) == implicit
    # The wavelets are convolutions for us, of fixed weights.
    assert [cost.flops / 1e9, 4 * cost.flops / 1e9] == pytest.approx(gflops, abs=0.1 if "dwt" in name else 0.0051)


def test_outputs_and_tapped_blocks(golden: Callable[[str], Numbers]) -> None:
    numbers = golden("yolor/yolor-p6_eval")
    model = filled("yolor-p6", numbers)
    outputs = tap(model)
    images = golden_image(numbers)
    with torch.no_grad():
        raw = model(images)
    tapped = sorted({int(key.split(".")[2]) for key in numbers if key.startswith("eval.layer.")})
    assert len(tapped) == 18
    errors = [assert_matches(outputs[row], numbers, f"eval.layer.{row}") for row in tapped]
    errors += [assert_matches(level, numbers, f"eval.raw.{i}") for i, level in enumerate(raw.levels)]
    decoded = published_decoding(model.decode(raw, tuple(images.shape[2:]))[0], raw)
    errors.append(assert_matches(decoded, numbers, "eval.decoded"))
    index, value = numbers["eval.decoded.index"], numbers["eval.decoded.value"]
    chosen = index % decoded.shape[-1] >= 4
    assert np.abs(decoded.numpy().reshape(-1)[index] - value)[chosen].max() <= 1e-4
    with torch.no_grad():  # the shared norms are cut and folded
        for level, before in zip(fuse(model)(images).levels, raw.levels, strict=True):
            assert (level - before).abs().max() <= 1e-4 * before.abs().max()
    print(f"yolor-p6: largest relative error {max(errors):.1e}")


@pytest.mark.parametrize("name", ["yolor-p6-v7", pytest.param("yolor-csp-v7", marks=pytest.mark.slow)])
def test_forms_published_with_yolov7(name: str, golden: Callable[[str], Numbers]) -> None:
    numbers = golden(f"yolor/model_{name.removesuffix('-v7').replace('-', '_')}_yaml")
    model = filled(name, numbers)
    assert np.array_equal(model.anchors_px.numpy(), numbers["anchors_px"])
    outputs = tap(model)
    batch, _, height, width = (int(n) for n in numbers["input.shape"])
    images = torch.from_numpy(image(height, width, batch, int(numbers["input.seed"])))
    with torch.no_grad():
        raw = model(images)
    for row, shape, mean, std in zip(*(numbers[f"layer.{k}"] for k in ("index", "shape", "mean", "std")), strict=True):
        if row in outputs:
            assert tuple(outputs[row].shape) == tuple(shape), f"row {row}"
            got = outputs[row].double()
            assert abs(got.mean() - mean) < 1e-4 and abs(got.std(correction=0) - std) < 1e-4, f"first wrong row: {row}"
    errors = [assert_matches(level, numbers, f"raw.{i}") for i, level in enumerate(raw.levels)]
    errors.append(assert_matches(published_decoding(model.decode(raw, (height, width))[0], raw), numbers, "decoded"))
    state = export_state_dict(fuse(model))
    idle = {key: value for key, value in export_state_dict(model).items() if ".ia." in key or ".im." in key}
    assert len(state) + len(idle) == numbers["fused.n_keys"]
    stored = {key.removeprefix("fused."): value for key, value in numbers.items() if key.startswith("fused.model.")}
    for key in {key.rsplit(".", 1)[0] for key in stored}:
        assert_matches(state[key], stored, key)
    fused = import_state_dict(name, state | idle)  # as published fusing leaves it
    assert fused.spec.form == "fused"
    with torch.no_grad():
        raw = fused(images)
    decoded = published_decoding(fused.decode(raw, (height, width))[0], raw)
    errors.append(assert_matches(decoded, numbers, "fused.decoded"))
    print(f"{name}: largest relative error {max(errors):.1e}")


def test_training(golden: Callable[[str], Numbers]) -> None:
    numbers = golden("yolor/yolor-p6_train")
    model = filled("yolor-p6", numbers)
    loss = LossConfig(assigner="anchor_ratio", gains="yolor", objectness_iou_ratio=1.0, box=0.05, cls=0.5, obj=1.0)
    check_step(model, numbers, loss, eps=1e-3, names=name_table(model.spec).published)
