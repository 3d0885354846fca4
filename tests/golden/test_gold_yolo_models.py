"""The Gold-YOLO models against the published implementation: outputs, modules, statistics, folding, counts, cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cloverleaf.deploy.fuse import fuse
from cloverleaf.heads.dense import DenseHead
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.models.catalog import MODELS, empty_detector
from cloverleaf.models.cost import measure
from cloverleaf.models.detector import Detector
from cloverleaf.ops.points import cell_middles
from cloverleaf.structures import DenseOutput
from cloverleaf.weights import export_state_dict, import_state_dict
from conftest import GOLDEN
from golden.compare import assert_matches, filled_state
from golden.fill import fill, image

Golden = Callable[[str], dict[str, np.ndarray]]
RAMP = np.arange(17, dtype=np.float32)
# file -> (keys, batch, height, width, seed of the image)
CASES = {
    "n_base_nodfl_128x160": ("n_base_nodfl", 2, 128, 160, 0),
    "n_base_192x128": ("n_base", 1, 192, 128, 3),
    "n_fuse_ab_128x128": ("n_fuse_ab", 2, 128, 128, 1),
    "n_distill_ns_128x128": ("n_distill_ns", 2, 128, 128, 2),
    "s_base_128x128": ("s_base", 2, 128, 128, 0),
    "s_fuse_ab_128x96": ("s_fuse_ab", 1, 128, 96, 4),
    "s_distill_ns_96x160": ("s_distill_ns", 1, 96, 160, 5),
}
MODULES = {
    "backbone.stem": "backbone.stem", "backbone.stage4": "backbone.ERBlock_2", "backbone.stage8": "backbone.ERBlock_3",
    "backbone.stage16": "backbone.ERBlock_4", "backbone.stage32": "backbone.ERBlock_5",
    "neck.low_fam": "neck.low_FAM", "neck.low_ifm": "neck.low_IFM",
    "neck.narrow.1": "neck.reduce_layer_c5", "neck.narrow.0": "neck.reduce_layer_p4",
    "neck.low_laf.1": "neck.LAF_p4", "neck.low_laf.0": "neck.LAF_p3",
    "neck.low_inject.1": "neck.Inject_p4", "neck.low_inject.0": "neck.Inject_p3",
    "neck.low_blocks.1": "neck.Rep_p4", "neck.low_blocks.0": "neck.Rep_p3",
    "neck.high_fam": "neck.high_FAM", "neck.high_ifm.transformer": "neck.high_IFM", "neck.high_ifm": "neck.conv_1x1_n",
    "neck.high_laf.0": "neck.LAF_n4", "neck.high_laf.1": "neck.LAF_n5",
    "neck.high_inject.0": "neck.Inject_n4", "neck.high_inject.1": "neck.Inject_n5",
    "neck.high_blocks.0": "neck.Rep_n4", "neck.high_blocks.1": "neck.Rep_n5",
}  # fmt: skip
Case = tuple[str, dict[str, np.ndarray], Detector, Tensor]


def keys_of(form: str) -> str:
    return (GOLDEN / f"gold_yolo/keys/gold_yolo-{form}.txt").read_text()


def is_statistic(key: str) -> bool:
    return key.endswith(("running_mean", "running_var"))


def published(form: str, statistics: np.ndarray | None = None) -> dict[str, Tensor]:
    """The published state dict, filled by the golden rule; `statistics` in the order of the base form's keys."""
    state = filled_state(keys_of(form), {"detect.proj": RAMP, "detect.proj_conv.weight": RAMP}, 1.0)
    at = 0
    for key in filter(is_statistic, state) if statistics is not None else ():
        state[key] = torch.from_numpy(statistics[at : at + state[key].numel()].copy())
        at += state[key].numel()
    assert statistics is None or at == len(statistics)
    return state


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, golden: Golden) -> Case:
    form, batch, height, width, seed = CASES[request.param]
    size = form[0]
    state = published(form, golden(f"gold_yolo/bn_state_gold_yolo-{size}")["running"])
    model = import_state_dict(f"gold-yolo-{size}", state)
    return (
        request.param,
        golden(f"gold_yolo/gold_yolo-{request.param}"),
        model,
        torch.from_numpy(image(height, width, batch, seed)),
    )


def joined(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else torch.cat(output, 1)


def kept_outputs(model: nn.Module, paths: Mapping[str, str]) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, output: outputs.__setitem__(name, joined(output))

    for path, name in paths.items():
        model.get_submodule(path).register_forward_hook(keep(name))
    return outputs


def centre_and_size(boxes: Tensor) -> Tensor:
    return torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), -1)


def check_decoded(model: Detector, raw: DenseOutput, size_hw: tuple[int, int], numbers: Any, form: str) -> float:
    boxes, scores = model.decode(raw, size_hw)
    return max(
        assert_matches(centre_and_size(boxes), numbers, f"{form}.boxes", 2e-4),
        assert_matches(scores, numbers, f"{form}.scores", 2e-4),
    )


def check_raw(raw: DenseOutput, numbers: Mapping[str, Any], prefix: str, tolerance: float = 2e-4) -> None:
    free = "_af" if raw.aided is not None else ""
    assert_matches(raw.logits.sigmoid(), numbers, f"{prefix}.cls{free}", tolerance)
    assert_matches(raw.distances, numbers, f"{prefix}.reg{free}", tolerance)
    if raw.direct is not None:
        assert_matches(raw.direct, numbers, f"{prefix}.lrtb", tolerance)
    if raw.aided is not None:
        assert_matches(raw.aided.logits.sigmoid(), numbers, f"{prefix}.cls_ab", tolerance)
        assert_matches(raw.aided.boxes_cxcywh, numbers, f"{prefix}.reg_ab", tolerance)


def test_outputs_of_model_modules_and_fused_form(case: Case) -> None:
    name, numbers, model, images = case
    size_hw = (images.shape[2], images.shape[3])
    paths = MODULES if f"eval.{MODULES['neck.low_fam']}.shape" in numbers else {}
    stems = {f"head.levels.{i}.stem": f"train.stem{i}" for i in range(3)}
    watched = import_state_dict(model.spec.name, export_state_dict(model))
    outputs = kept_outputs(watched, {**{ours: f"eval.{theirs}" for ours, theirs in paths.items()}, **stems})
    with torch.no_grad():
        maps = watched.features(images)
        raw = watched.head(maps)
        fused = fuse(watched)
        for map_name, value in zip(("p3", "n4", "n5"), maps, strict=True):
            assert_matches(value, numbers, f"eval.neck.{map_name}", 2e-4)
        for key, value in outputs.items():
            if (
                key != "eval.neck.low_IFM"
            ):  # the published name is that of the layer before the split, which is the same
                assert_matches(value, numbers, key, 2e-4)
        check_raw(raw, numbers, "train")
        errors = (
            check_decoded(watched, raw, size_hw, numbers, "eval"),
            check_decoded(fused, fused(images), size_hw, numbers, "deploy"),
        )
    assert sum(p.numel() for p in model.parameters()) + 34 == numbers["param_count"]
    print(f"{name:24} decoded {errors[0]:.1e}, fused {errors[1]:.1e}")


def test_batch_statistics(case: Case) -> None:
    _, numbers, model, images = case
    if "train_bn.running_after.shape" not in numbers:
        pytest.skip("no such numbers for this form")
    spec = replace(model.spec, neck=replace(model.spec.neck, drop_path=0.0))
    trained = empty_detector(spec)
    trained.load_state_dict(model.state_dict())
    trained.double().train()
    with torch.no_grad():
        check_raw(trained(images.double()), numbers, "train_bn", 1e-5)
    state = export_state_dict(trained)
    after = torch.cat([value.flatten() for key, value in state.items() if is_statistic(key)])
    assert_matches(after, numbers, "train_bn.running_after", 1e-5)


# Size -> parameters of the base form with distributions, of the same folded, and 1e9 operations at 640 px of the latter
PUBLISHED_COST = {
    "n": (6_077_118, 5_637_022, 12.147),
    "s": (23_202_974, 21_542_430, 46.128),
    "m": (44_326_806, 41_329_174, 87.445),
    "l": (75_114_699, 75_065_035, 151.681),
}
OTHER_FORMS = {
    ("n", "reg_max", 0): 6_062_590, ("n", "aided", True): 6_134_322, ("n", "direct", True): 6_078_026,
    ("s", "aided", True): 23_316_626, ("s", "direct", True): 23_204_778,
    ("m", "aided", True): 44_496_906, ("l", "aided", True): 75_341_247,
}  # fmt: skip
CONSTANTS = 34  # of the published head: 0 ... 16 twice


@pytest.mark.parametrize("size", PUBLISHED_COST)
def test_published_cost(size: str) -> None:
    """Folded, the published form keeps the BatchNorm of some convolutions of the neck, and so does its counter."""
    spec = MODELS[f"gold-yolo-{size}"].spec
    cost, folded = measure(spec, (640, 640)), measure(spec.as_fused(), (640, 640))
    model = empty_detector(spec)
    parts = ("inject", "high_ifm", ".enter", ".leave")
    kept = sum(
        module.norm.num_features
        for name, module in model.neck.named_modules()
        if isinstance(module, ConvNormAct) and any(part in name for part in parts)
    )
    params, folded_params, gflops = PUBLISHED_COST[size]
    ours = (cost.params + CONSTANTS, folded.params + kept + CONSTANTS)
    print(f"{size}: {ours} published {(params, folded_params)}; {folded.flops / 1e9:.3f} published {gflops}")
    assert ours == (params, folded_params)
    assert folded.flops / 1e9 == pytest.approx(gflops, rel=5e-4)


@pytest.mark.parametrize(("size", "option", "value"), OTHER_FORMS)
def test_parameters_of_other_heads(size: str, option: str, value: Any) -> None:
    spec = MODELS[f"gold-yolo-{size}"].spec
    model = empty_detector(replace(spec, head=replace(spec.head, **{option: value})))
    assert sum(p.numel() for p in model.parameters()) + CONSTANTS == OTHER_FORMS[size, option, value]


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(10 * fill(name, (int(np.prod(shape)),), 1.0)).reshape(shape)


# published module -> our path, and the names of its inputs
GATHER = {
    "low_FAM": ("low_fam", "c2 c3 c4 c5"), "low_IFM": ("low_ifm", "low_align"), "reduce_layer_c5": ("narrow.1", "c5"),
    "LAF_p4": ("low_laf.1", "c3 c4 c5_half"), "LAF_p3": ("low_laf.0", "c2 c3 p4_half"),
    "Inject_p4.same": ("low_inject.1", "p4_adj g_p4"), "Inject_p3.up": ("low_inject.0", "p3_adj g_p3"),
    "Inject_p3.down": ("low_inject.0", "p3_adj_small g_p3"), "Inject_p3.mixed": ("low_inject.0", "p3_adj_mixed g_p3"),
    "Rep_p4": ("low_blocks.1", "rep_p4_in"), "high_FAM": ("high_fam", "p3 p4 c5"),
    "high_IFM": ("high_ifm.transformer", "high_align"),
    "high_IFM.attn0": ("high_ifm.transformer.attention.0", "high_align"),
    "high_IFM.mlp0": ("high_ifm.transformer.mlp.0", "high_align"), "LAF_n4": ("high_laf.0", "p3 p4_half"),
    "Inject_n4.up": ("high_inject.0", "n4_adj g_n4"), "Inject_n5.up": ("high_inject.1", "n5_adj g_n5"),
    "Rep_n5": ("high_blocks.1", "rep_n5_in"),
}  # fmt: skip


@pytest.mark.parametrize("size", ["n", "s"])
def test_modules_of_the_neck(size: str, golden: Golden) -> None:
    """At sizes that no detector has, such as maps that do not divide each other."""
    numbers = golden(f"gold_yolo/modules_gd_{size}")
    neck = import_state_dict(f"gold-yolo-{size}", published(f"{size}_base")).neck
    with torch.no_grad():
        for name, (path, inputs) in GATHER.items():
            maps = [
                noise(f"gd_{size}.{x}", tuple(numbers[f"{name}.in{i}.shape"])) for i, x in enumerate(inputs.split())
            ]
            module = neck.get_submodule(path)
            output = module(maps) if name.endswith("FAM") else module(*maps)
            assert_matches(joined(output), numbers, name)


HEADS = {"base": "n_base", "nodfl": "n_base_nodfl", "distill_ns": "n_distill_ns", "fuse_ab": "n_fuse_ab"}


@pytest.mark.parametrize("tag", HEADS)
def test_head_alone(tag: str, golden: Golden) -> None:
    numbers = golden("gold_yolo/modules_head_n")
    classes = int(numbers["num_classes"])
    lines = []
    for line in keys_of(HEADS[tag]).splitlines():  # the same head for seven classes
        name, shape, dtype = line.split("\t")
        if name.startswith("detect.cls_preds"):
            first, rest = shape.strip("()").split(",", 1)
            shape = f"({int(first) // 80 * classes},{rest})"
        lines.append(f"{name}\t{shape}\t{dtype}")
    state = filled_state("\n".join(lines), {"detect.proj": RAMP, "detect.proj_conv.weight": RAMP}, 1.0)
    head = import_state_dict("gold-yolo-n", state).head
    assert isinstance(head, DenseHead)
    with torch.no_grad():
        raw = head([noise(f"head_n.feat{i}", tuple(numbers[f"in{i}.shape"])) for i in range(3)])
        boxes, scores = head.decode(raw, (96, 128))
    tagged = {key.removeprefix(f"{tag}."): value for key, value in numbers.items() if key.startswith(f"{tag}.")}
    check_raw(raw, tagged, "train", 1e-4)
    assert_matches(centre_and_size(boxes), tagged, "eval.boxes")
    assert_matches(scores, tagged, "eval.scores")
    points, strides = cell_middles(head.strides, (96, 128))
    assert_matches(points * strides, numbers, "anchor_points")
    assert_matches(strides, numbers, "stride")
