"""Implicit knowledge in any family: deployed, it leaves nothing behind but the same outputs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cloverleaf.deploy.fuse import fuse
from cloverleaf.layers.implicit import Implicit
from cloverleaf.models.catalog import create_model
from cloverleaf.models.detector import Detector
from cloverleaf.structures import AnchorOutput
from cloverleaf.weights import load, save

NARROW = {"width": 0.125}
PROJECTION = {"operator": "inner", "rows": 5}
NETWORK = {"operator": "add", "modelling": "network", "prior": 3, "activation": "silu"}
ATOMS = {"operator": "concatenate", "length": 3, "modelling": "factorisation", "atoms": 4, "sparsity": 0.1}
# Name, options of neck and head, implicit knowledge of both.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any, Any]] = {
    "released": ("yolov7-tiny", NARROW, NARROW, None, True),
    "anchors": (
        "yolov7-tiny", NARROW, NARROW, {"align": "add"},
        {"align": PROJECTION, "refine": "gate", "anchor": "multiply", "offset": NETWORK},
    ),
    "gather-distribute": ("gold-yolo-n", NARROW, {"direct": True}, {"align": "multiply"}, {"align": ATOMS}),
    "shared norm": (
        "csp-tiny+csp-pan+anchor", {**NARROW, "norm": "shared"}, NARROW, {"align": "inner"}, {"align": ATOMS},
    ),
    "c2f": (
        "csp-tiny+c2f-pan+dense", NARROW, {"aided": True}, {"align": NETWORK}, {"align": "gate", "refine": "inner"},
    ),
    "c3": ("csp-tiny+c3-pan+dense", NARROW, {}, {"align": "inner"}, {"align": PROJECTION, "refine": "multiply"}),
    "gelan": ("csp-tiny+gelan-pan+dense", {**NARROW, "depth": 1}, {}, {"align": "add"}, {"refine": "add"}),
    "rep": ("csp-tiny+rep-pan+dense", {**NARROW, "depth": 2}, {}, {"align": "inner"}, {"align": "concatenate"}),
    "regions": (
        "csp-tiny+fpn+mask-rcnn", {"width": 8}, {"representation": 8, "mask_width": 8}, {"align": "inner"}, None,
    ),
    "classes": ("csp-tiny+none+classify", {}, {}, None, {"task": ATOMS}),
}  # fmt: skip
ONNX = ("released", "anchors", "gather-distribute", "c2f", "classes")


def pair(case: str) -> tuple[Detector, Detector]:
    """A model without and one with implicit knowledge that looks trained; everything else is arbitrary."""
    name, neck, head, in_neck, in_head = CASES[case]
    torch.manual_seed(0)
    bare = {**head, "implicit": False} if "anchor" in name or "yolov7" in name else head
    known = head if in_head is None else {**head, "implicit": in_head}
    models = [
        create_model(name, num_classes=3, backbone=NARROW, neck=neck_options, head=head_options)
        for neck_options, head_options in ((neck, bare), ({**neck, "implicit": in_neck} if in_neck else neck, known))
    ]
    generator = torch.Generator().manual_seed(1)
    for module in models[1].modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, Implicit) or not parameter.any():
                parameter.data += 0.7 * torch.randn(parameter.shape, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.3, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
    return models[0].eval(), models[1].eval()


def images(model: Detector) -> Tensor:
    return torch.rand(2, 3, *[2 * model.max_stride] * 2, generator=torch.Generator().manual_seed(2))


def outputs(model: Detector, x: Tensor) -> list[Tensor]:
    """What is predicted; of regions the maps that everything reads."""
    if model.task == "instance":
        return list(model.features(x))
    raw = model(x)
    if isinstance(raw, AnchorOutput):
        return list(raw.levels)
    if model.task == "classify":
        return [raw.logits]
    return [raw.logits, raw.distances if raw.direct is None else raw.direct]


class _Operators(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found[str(func)] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def operators(model: Detector) -> Counter[str]:
    with _Operators() as counting:
        outputs(model, images(model))
    return counting.found


@pytest.mark.parametrize("case", CASES)
def test_folds_without_a_trace_and_learns(case: str, tmp_path: Path) -> None:
    bare, model = pair(case)
    with torch.no_grad():
        _check_folding(bare, model, tmp_path / "model.safetensors")
    sum(output.square().sum() for output in outputs(model.train(), images(model))).backward()
    for name, module in model.named_modules():
        if isinstance(module, Implicit) and "refine_distances" not in name:  # beside `direct` not looked at here
            for key, parameter in module.named_parameters():
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"{name}.{key}"


def _check_folding(bare: Detector, model: Detector, path: Path) -> None:
    assert model.spec.form == "training" and any(isinstance(module, Implicit) for module in model.modules())
    x = images(model)
    expected = outputs(model, x)
    deployed, fused = model.deployed(), fuse(model)
    for form, other in ((deployed, bare.deployed()), (fused, fuse(bare))):
        assert not any(isinstance(module, Implicit) or module.training for module in form.modules())
        assert (form.spec.neck, form.spec.head) == (other.spec.neck, other.spec.head)
        for ours, theirs in zip(expected, outputs(form, x), strict=True):
            assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))
        assert {key: value.shape for key, value in form.state_dict().items()} == {
            key: value.shape for key, value in other.state_dict().items()
        }
        assert operators(form) == operators(other), "it computes more than a model without"
    assert operators(model).total() > operators(bare).total()
    save(model, path)
    loaded = load(path)
    assert loaded.spec == model.spec
    assert all(torch.equal(a, b) for a, b in zip(outputs(loaded, x), expected, strict=True))


def _graph(model: Detector) -> tuple[Counter[str], Any]:
    from cloverleaf.deploy.onnx_graph import trace

    names = ("probabilities",) if model.task == "classify" else ("boxes", "scores")
    proto = trace(fuse(model), names, image_size=2 * model.max_stride, batch_size=2)
    return Counter(node.op_type for node in proto.graph.node), proto


@pytest.mark.parametrize(
    "case", [case if case == "classes" else pytest.param(case, marks=pytest.mark.slow) for case in ONNX]
)
def test_exported_graph_has_not_one_node_more(case: str) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from cloverleaf.deploy.onnx_file import open_session
    from cloverleaf.deploy.onnx_graph import deployable

    bare, model = pair(case)
    (nodes, proto), (others, _) = _graph(model), _graph(bare)
    assert nodes == others and nodes.total() > 10
    session, x = open_session(proto.SerializeToString()), images(model)
    with torch.no_grad():
        expected = deployable(model)(x)
    expected = [expected] if isinstance(expected, Tensor) else expected
    for ours, theirs in zip(expected, session.run(None, {"images": x.numpy()}), strict=True):
        assert (ours - torch.from_numpy(theirs)).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))
