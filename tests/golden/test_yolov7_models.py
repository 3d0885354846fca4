"""The YOLOv7 models against the published implementation: outputs, fused tensors, names, counts, cost, conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cloverleaf.deploy.fuse import fuse
from cloverleaf.heads.anchor_based import AnchorHead, AnchorHeadSpec
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style
from cloverleaf.models.catalog import MODELS, create_model
from cloverleaf.models.cost import measure
from cloverleaf.models.detector import Detector
from cloverleaf.structures import AnchorOutput, FeatureSpec
from cloverleaf.weights import export_state_dict, import_state_dict
from cloverleaf.weights.importers.names import NameTable
from cloverleaf.weights.importers.yolov7 import NAMES as PUBLISHED
from cloverleaf.weights.importers.yolov7 import name_table
from golden.compare import assert_matches, filled_state
from golden.fill import fill, image

KEYS = Path(__file__).parent / "yolov7" / "keys"
CASES = {
    ("yolov7-tiny", "training"): "model_tiny",
    ("yolov7-tiny", "deploy"): "model_tiny_deploy",
    ("yolov7", "training"): "model_base",
    ("yolov7", "deploy"): "model_base_deploy",
    ("yolov7-w6", "training"): "model_w6",
    ("yolov7-w6", "deploy"): "model_w6_deploy",
}
Case = tuple[str, str, dict[str, Any], Detector]


def keys_of(name: str, form: str) -> str:
    return (KEYS / f"{name}{'-deploy' if form == 'deploy' else ''}.txt").read_text()


def spec_of(name: str, form: str) -> Any:
    spec = MODELS[name].spec
    return spec if form == "training" else spec.as_deployed()


def published(name: str, form: str, gain: float) -> dict[str, Tensor]:
    """The published state dict, filled by the golden rule."""
    spec = spec_of(name, form)
    head = name_table(spec).head
    anchors = np.array(spec.head.anchors_px, np.float32)
    strides = np.array([8 << i for i in range(len(anchors))], np.float32)[:, None, None]
    return filled_state(keys_of(name, form), {f"{head}anchors": anchors / strides, f"{head}anchor_grid": anchors}, gain)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, golden: Callable[[str], dict[str, np.ndarray]]) -> Case:
    name, form = request.param
    numbers = golden(f"yolov7/{CASES[name, form]}")
    return name, form, numbers, import_state_dict(name, published(name, form, float(numbers["gain"])))


def golden_image(numbers: dict[str, np.ndarray]) -> Tensor:
    batch, _, height, width = (int(n) for n in numbers["input.shape"])
    return torch.from_numpy(image(height, width, batch, int(numbers["input.seed"])))


def _keep(outputs: dict[int, Tensor], row: int) -> Callable[[Any, Any, Tensor], None]:
    return lambda _module, _inputs, output: outputs.__setitem__(row, output)


def published_decoding(boxes: Tensor, raw: AnchorOutput, first: int = 4) -> Tensor:
    """The published layout: centre-size boxes, then objectness and class probabilities, not multiplied."""
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    rest = torch.cat([level[..., first:].flatten(1, 3) for level in raw.levels], 1).sigmoid()
    return torch.cat((centre, size, rest), -1)


def test_outputs_and_every_row(case: Case) -> None:
    name, form, numbers, model = case
    assert model.spec.form == form
    assert np.array_equal(model.anchors_px.numpy(), numbers["anchors_px"])
    outputs: dict[int, Tensor] = {}
    hooks = []
    for path, place in name_table(model.spec).rows.items():
        row, _, part = place.partition(".")  # of a row with several blocks the whole speaks
        whole = "neck.spp" if path.startswith("neck.spp.") and part else path.rpartition(".")[0] if part else path
        hooks.append(model.get_submodule(whole).register_forward_hook(_keep(outputs, int(row))))
    images = golden_image(numbers)
    with torch.no_grad():
        raw = model(images)
    for hook in hooks:
        hook.remove()
    compared = 0
    for row, shape, mean, std in zip(*(numbers[f"layer.{k}"] for k in ("index", "shape", "mean", "std")), strict=True):
        if row in outputs:
            compared += 1
            assert tuple(outputs[row].shape) == tuple(shape), f"row {row}"
            got = outputs[row].double()
            assert abs(got.mean() - mean) < 1e-4 and abs(got.std(correction=0) - std) < 1e-4, f"first wrong row: {row}"
    assert compared == len({place.split(".")[0] for place in name_table(model.spec).rows.values()})
    auxiliary = raw.auxiliary or ()
    assert len(auxiliary) == (4 if (name, form) == ("yolov7-w6", "training") else 0)
    errors = [assert_matches(level, numbers, f"raw.{i}") for i, level in enumerate((*raw.levels, *auxiliary))]
    assert f"raw.{len(raw.levels) + len(auxiliary)}.index" not in numbers
    boxes, scores = model.decode(raw, tuple(images.shape[2:]))
    decoded = published_decoding(boxes, raw)
    error = assert_matches(decoded, numbers, "decoded")
    print(f"{name} {form} form: largest relative error of raw outputs {max(errors):.1e}, decoded {error:.1e}")
    torch.testing.assert_close(scores, decoded[..., 4:5] * decoded[..., 5:])


def test_fused(case: Case) -> None:
    name, form, numbers, model = case
    fused = fuse(model)
    assert fused.spec.form == "fused" and not model.spec.fused
    state = export_state_dict(fused)
    stored = {key.removeprefix("fused."): value for key, value in numbers.items() if key.startswith("fused.model.")}
    training_head, head = name_table(spec_of(name, form)).head, name_table(fused.spec).head
    tensors = {key.rsplit(".", 1)[0] for key in stored}
    assert len(tensors) >= 8
    for key in sorted(tensors):
        assert_matches(state[key.replace(training_head, head)], stored, key)
    images = golden_image(numbers)
    with torch.no_grad():
        raw = fused(images)
    assert raw.auxiliary is None
    decoded = published_decoding(fused.decode(raw, tuple(images.shape[2:]))[0], raw)
    error = assert_matches(decoded, numbers, "fused.decoded")
    print(f"{name} {form} form, fused: largest relative error of decoded {error:.1e}")


def test_fused_training_form_is_read(case: Case) -> None:
    """Published fusing leaves implicit terms and auxiliary branches standing, though only the branches still run."""
    name, form, numbers, model = case
    fused = fuse(model)
    table, head = name_table(spec_of(name, form)), name_table(fused.spec).head
    state = {key.replace(head, table.head): value for key, value in export_state_dict(fused).items()}
    before = export_state_dict(model)
    if form == "training":
        state |= {k: v for k, v in before.items() if ".ia." in k or ".im." in k or k.startswith(f"{table.head}m2.")}
        for prefix in [p for p in table.auxiliary if not p.startswith(table.head)]:
            state |= {f"{prefix}conv.weight": before[f"{prefix}conv.weight"], f"{prefix}conv.bias": torch.zeros(1)}
    assert len(state) == numbers["fused.n_keys"]
    again = import_state_dict(name, state)
    assert again.spec.form == "fused"
    for key, value in fused.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_training_mode_batch_statistics(golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    numbers = golden("yolov7/model_tiny")
    model = import_state_dict("yolov7-tiny", published("yolov7-tiny", "training", float(numbers["gain"]))).train()
    height, width = (int(n) for n in numbers["input.shape"][2:])
    batch, seed = int(numbers["bn_train.input.batch"]), int(numbers["bn_train.input.seed"])
    raw = model(torch.from_numpy(image(height, width, batch, seed)))
    for i, level in enumerate(raw.levels):
        assert_matches(level, numbers, f"bn_train.raw.{i}")
    state = export_state_dict(model)
    running = [key for key in numbers if key.startswith("bn_train.model.")]
    assert len(running) == 6
    for key in running:
        assert_matches(state[key.removeprefix("bn_train.")], numbers, key)


LARGE = ("yolov7-e6", "yolov7-d6", "yolov7-e6e")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in PUBLISHED if not n.endswith("silu")]


@pytest.mark.parametrize("form", ["training", "deploy"])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_published_ones_in_their_order(name: str, form: str) -> None:
    model = create_model(name)
    model = model if form == "training" else model.deployed()
    state = export_state_dict(model)
    assert [f"{k}\t{tuple(v.shape)}\t{str(v.dtype).removeprefix('torch.')}" for k, v in state.items()] == keys_of(
        name, form
    ).splitlines()
    again = import_state_dict(name, state)
    assert again.spec == model.current_spec()
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


# Parameters and GFLOPs (2 x multiply-accumulates; 640 px, P6 models 1280 px) in training, deploy and fused form.
PUBLISHED_COST = {
    "yolov7-tiny": ((6_228_762, 6_227_101, 6_219_709), (13.86, 13.86, 13.70)),
    "yolov7": ((37_622_682, 37_620_125, 36_905_341), (106.47, 106.47, 104.51)),
    "yolov7x": ((71_347_394, 71_344_389, 71_311_741), (190.58, 190.58, 189.68)),
    "yolov7-w6": ((82_312_436, 70_426_236, 70_394_300), (421.9, 361.4, 359.7)),
    "yolov7-e6": ((111_898_292, 97_246_652, 97_202_940), (590.9, 517.2, 514.4)),
    "yolov7-d6": ((154_709_364, 133_810_044, 133_757_052), (809.5, 705.1, 701.8)),
    "yolov7-e6e": ((166_408_884, 151_757_244, 151_687_420), (920.1, 846.4, 842.2)),
}


@pytest.mark.parametrize("name", PUBLISHED_COST)
def test_published_cost(name: str) -> None:
    spec, size = MODELS[name].spec, MODELS[name].image_size
    costs = [measure(form, (size, size)) for form in (spec, spec.as_deployed(), spec.as_fused())]
    params, gflops = PUBLISHED_COST[name]
    assert tuple(cost.params for cost in costs) == params
    # The published counter charges eight operations for every value that passes a BatchNorm; a fused model has none.
    counted = [(cost.flops + 8 * cost.norm_values) / 1e9 for cost in costs]
    print(f"{name:12} {size} px  {params}  ours {[round(g, 2) for g in counted]}  published {gflops}")
    assert counted == pytest.approx(gflops, rel=2e-4)


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_training_checkpoint_to_deploy_form(name: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    """The published conversion: implicit terms folded into the projections, auxiliary head dropped."""
    numbers = golden(f"yolov7/reparam_{'base' if name == 'yolov7' else 'w6'}")
    state = published(name, "training", float(numbers["gain"]))
    training = import_state_dict(name, state)
    deploy = training.deployed()
    assert deploy.spec.form == "deploy" and training.spec.form == "training"
    converted = export_state_dict(deploy)
    assert len(state) == numbers["n_training_keys"] and len(converted) == numbers["n_deploy_keys"]
    shared = [key for key, value in converted.items() if key in state and state[key].shape == value.shape]
    assert len(shared) == numbers["n_copied_keys"]
    stored = {key.removeprefix("deploy."): value for key, value in numbers.items() if key.startswith("deploy.model.")}
    for key in sorted({key.rsplit(".", 1)[0] for key in stored}):
        assert_matches(converted[key], stored, key)
    images = golden_image(numbers)
    halved = import_state_dict(name, {k: v.half() if v.is_floating_point() else v for k, v in converted.items()})
    for model, key, tolerance in (
        (training, "training", 1e-4), (deploy, "deploy", 1e-4), (fuse(deploy), "deploy_fused", 1e-4),
        (halved, "deploy_fp16_weights", 1e-3),
    ):  # fmt: skip
        with torch.no_grad():
            raw = model(images)
        decoded = published_decoding(model.decode(raw, tuple(images.shape[2:]))[0], raw)
        assert_matches(decoded, numbers, f"{key}.decoded", tolerance)


@pytest.mark.parametrize("case_name", ["identity", "no_identity", "stride2"])
def test_rep_conv(case_name: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    numbers = {k.split("/")[1]: v for k, v in golden("yolov7/repconv").items() if k.startswith(f"{case_name}/")}
    narrow, wide, stride = (int(n) for n in numbers["c1_c2_stride"])
    block = RepConv(narrow, wide, stride, style=Style()).eval()
    names = (
        ("identity_norm.", "rbr_identity."), ("dense_norm.", "rbr_dense.1."), ("dense.", "rbr_dense.0."),
        ("point_norm.", "rbr_1x1.1."), ("point.", "rbr_1x1.0."),
    )  # fmt: skip
    theirs = {}
    for key in block.state_dict():
        ours, published_name = next(pair for pair in names if key.startswith(pair[0]))
        theirs[key] = published_name + key.removeprefix(ours)
    assert set(theirs.values()) == set(numbers["keys"].tolist())
    for key, value in block.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(fill(f"repconv.{case_name}.{theirs[key]}", tuple(value.shape), 1.68)))
    x = torch.from_numpy(noise(f"repconv.{case_name}.x", (2, narrow, 10, 14)))
    folded = block.reparameterized()
    with torch.no_grad():
        assert_matches(block(x), numbers, "out")
        assert_matches(folded.conv.weight, numbers, "fused.weight")
        assert folded.conv.bias is not None
        assert_matches(folded.conv.bias, numbers, "fused.bias")
        assert_matches(folded(x), numbers, "fused.out")


@pytest.mark.parametrize("kind", ["detect", "idetect", "iaux", "ibin"])
def test_head_alone(kind: str, golden: Callable[[str], dict[str, np.ndarray]]) -> None:
    prefix = f"head.{kind}"
    numbers = {k.removeprefix(f"{prefix}/"): v for k, v in golden("yolov7/heads").items() if k.startswith(f"{prefix}/")}
    channels, strides = tuple(numbers["channels"].tolist()), tuple(numbers["strides"].tolist())
    lead, auxiliary = channels[: len(strides)], channels[len(strides) :]
    spec = AnchorHeadSpec(
        implicit=kind != "detect", stem="none", auxiliary=kind == "iaux", bins=21 if kind == "ibin" else 0,
        anchors_px=numbers["anchors_px"].reshape(len(strides), 3, 2).tolist(),
    )  # fmt: skip
    head = AnchorHead(spec, FeatureSpec(lead, strides, auxiliary or None), int(numbers["nc"]))
    parameters = published_head(head)
    assert set(parameters) == {k for k in numbers["keys"].tolist() if "anchor" not in k and "_bin_sigmoid." not in k}
    for key, value in parameters.items():
        value.data.copy_(torch.from_numpy(fill(f"{prefix}.{key}", tuple(value.shape), 1.0)))
    height, width = (int(n) for n in numbers["hw"])
    features = [
        torch.from_numpy(noise(f"{prefix}.f.{i}", (int(numbers["batch"]), c, height // s, width // s)))
        for i, (c, s) in enumerate(zip(channels, strides * 2, strict=False))
    ]
    with torch.no_grad():
        raw = head(features)
        for i, level in enumerate((*raw.levels, *(raw.auxiliary or ()))):
            assert_matches(level, numbers, f"raw.{i}")
        objectness = -1 - head.num_classes
        assert_matches(published_decoding(head.decode(raw, (height, width))[0], raw, objectness), numbers, "decoded")
        if kind in ("idetect", "iaux"):
            head.deploy()
            assert not head.auxiliary
            for i, level in enumerate(head.levels):
                assert_matches(level.project.weight, numbers, f"fused.m.{i}.weight")
                assert_matches(level.project.bias, numbers, f"fused.m.{i}.bias")
            raw = head(features[: len(strides)])
            assert_matches(published_decoding(head.decode(raw, (height, width))[0], raw), numbers, "fused.decoded")


def published_head(head: AnchorHead) -> dict[str, Tensor]:
    table = NameTable({}, 0)
    names = table.published(f"head.{key}" for key, _ in head.named_parameters())
    return {names[f"head.{key}"].removeprefix(table.head): value for key, value in head.named_parameters()}


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    import zlib

    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
