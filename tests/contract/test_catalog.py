"""What every model of the catalog, and every composition, must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cloverleaf.deploy.fuse import fuse
from cloverleaf.errors import ConfigError
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.catalog import MODELS, create_model, find_spec, list_models
from cloverleaf.models.detector import Detector
from cloverleaf.structures import AnchorOutput, DenseOutput, SupervisedOutput
from cloverleaf.weights import load, save

COMPOSED = [
    *(f"{backbone}+elan-pan+anchor" for backbone in ("elan-tiny", "elan", "csp-tiny")),
    "elan-tiny+gather-distribute+dense",
    "csp-tiny+rep-pan+dense",
    "csp-stages+csp-pan+dense",
    "efficient-rep+elan-pan+anchor",
    "timm/resnet10t+gather-distribute+dense",
]
PUBLISHED = [name for name in list_models() if MODELS[name].spec.task == "detect"]
NAMES = [*PUBLISHED, *COMPOSED]
# As narrow and shallow as here they are what another one is.
ALIKE = {"yolor-w6", "yolor-d6", "yolor-csp-x-v7", "yolor-w6-v7", "yolor-d6-v7", "yolor-w6-darknet"}
TESTED = [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in NAMES]
# Tracing takes seconds: of models that differ in their backbone, in widths or in the number of levels, one has to do.
TRACED = [
    name
    for name in NAMES
    if not {f"{name}-p2", f"{name}-revcol"} & set(NAMES)
    and (not name.startswith(("yolov4-", "yolor-")) or name in ("yolov4-p7", "yolor-e6", "yolor-ssss-dwt"))
]


def tiny(name: str, num_classes: int = 3) -> Detector:
    """The model with narrow parts and, where the head has them, the branches that only training needs."""
    torch.manual_seed(0)
    spec = find_spec(name)
    backbone: dict[str, object] = {} if name.startswith("timm/") else {"width": 0.125}
    neck: dict[str, object] = {"width": 0.25}
    if spec.backbone.type == "revcol":
        backbone = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "columns": 2}
    if spec.neck.type == "gelan-pan":
        neck["depth"] = 1
    if spec.backbone.type in ("efficient-rep", "csp-bep"):
        backbone["depth"] = 0.17
    if spec.backbone.type == "csp-stages":
        backbone["depths"] = (1,) * len(spec.backbone.depths)
    if spec.neck.type == "csp-pan":
        neck["depth"] = 1
    if spec.neck.type == "gather-distribute":
        neck |= {"depth": 2, "drop_path": 0.0}  # what is dropped gets no gradient
    head: dict[str, object] = {"width": 0.25, "implicit": True}
    if isinstance(spec.head, DenseHeadSpec):
        head = {"aided": True, "direct": num_classes == 2, "reg_max": 0 if num_classes == 7 else 16}
    return create_model(name, num_classes=num_classes, backbone=backbone, neck=neck, head=head)


def tensors(raw: AnchorOutput | DenseOutput | SupervisedOutput) -> list[torch.Tensor]:
    """Everything that a head gives, and then what supervises further."""
    if isinstance(raw, SupervisedOutput):
        return [*tensors(raw.final), *(x for auxiliary in raw.auxiliary for x in tensors(auxiliary.raw))]
    if isinstance(raw, AnchorOutput):
        return [*raw.levels, *(raw.auxiliary or ())]
    aided = [] if raw.aided is None else [raw.aided.logits, raw.aided.boxes_cxcywh]
    return [raw.logits, raw.distances, *([] if raw.direct is None else [raw.direct]), *aided]


def with_random_statistics(model: Detector) -> Detector:
    """A fresh BatchNorm is nearly the identity and would hide mistakes in folding."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.3, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return model


def without_zeros(model: Detector) -> Detector:
    """Some layers start at zero, so that what is before them gets no gradient in the first step."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.uniform_(-0.1, 0.1, generator=generator)
    return model


def size_hw(model: Detector) -> tuple[int, int]:
    return 2 * model.max_stride, 3 * model.max_stride


def images(model: Detector, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, *size_hw(model), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("num_classes", [1, 2, 7])
@pytest.mark.parametrize("name", TESTED)
def test_forward_backward_decode(name: str, num_classes: int) -> None:
    model = without_zeros(tiny(name, num_classes)).train()
    raw = model(images(model))
    sum(output.square().sum() for output in tensors(raw)).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle, f"no gradient: {idle}"
    raw = raw.final if isinstance(raw, SupervisedOutput) else raw
    model.eval()
    with torch.no_grad():
        evaluated = model(images(model))
        boxes, scores = model.decode(evaluated, size_hw(model))
    assert type(evaluated) is type(raw)
    assert [x.shape for x in tensors(evaluated)] == [x.shape for x in tensors(raw)]
    height, width = size_hw(model)
    cells = [(height // s, width // s) for s in model.strides]
    count = sum(h * w for h, w in cells)
    if isinstance(raw, AnchorOutput):
        shapes = [(2, model.anchors_px.shape[1], h, w, 5 + num_classes) for h, w in cells]
        assert [tuple(x.shape) for x in raw.levels] == shapes
        assert raw.auxiliary is None or [tuple(x.shape) for x in raw.auxiliary] == shapes
        count *= model.anchors_px.shape[1]
        assert (boxes[..., 2:] > boxes[..., :2]).all()
    else:
        assert raw.logits.shape == (2, count, num_classes) and raw.aided.logits.shape == (2, 3 * count, num_classes)
        assert raw.distances.shape == (2, count, 4 if num_classes == 7 else 68)
        assert (raw.direct is not None) == (num_classes == 2)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, num_classes)
    assert boxes.dtype == scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    if num_classes == 1 and isinstance(raw, AnchorOutput):  # the class logit is not trained, so it must not count
        objectness = torch.cat([x[..., 4].flatten(1) for x in evaluated.levels], 1).sigmoid()
        torch.testing.assert_close(scores[..., 0], objectness)


@pytest.mark.parametrize("name", TESTED)
def test_fused_is_equal_and_the_original_untouched(name: str, tmp_path: Path) -> None:
    model = without_zeros(with_random_statistics(tiny(name))).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse(model)
    assert model.training and not fused.training and model.spec.form == "training" and fused.spec.form == "fused"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    folded = fused if not name.startswith("timm/") else nn.ModuleList([fused.neck, fused.head])  # not those of timm
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(part in key for key in fused.state_dict() for part in ("add.", "multiply.", "aided", "direct"))
    save(fused, tmp_path / "fused.safetensors")
    loaded = load(tmp_path / "fused.safetensors")
    with torch.no_grad():
        expected, actual, again = model.eval()(images(model)), fused(images(model)), loaded(images(model))
    assert all(torch.equal(theirs, read) for theirs, read in zip(tensors(actual), tensors(again), strict=True))
    for ours, theirs in zip(model.decode(expected, size_hw(model)), fused.decode(actual, size_hw(model)), strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", TESTED)
def test_weights_round_trip(name: str, half: bool, tmp_path: Path) -> None:
    model = with_random_statistics(tiny(name))
    if model.has_anchors:
        model.head.set_anchors(model.anchors_px * 1.1)
    path = tmp_path / "new folder" / "model.safetensors"
    save(model, path, half=half)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file is left"
    state = torch.get_rng_state()
    loaded = load(path)
    assert torch.equal(state, torch.get_rng_state()), "loading draws random numbers"
    assert loaded.spec == model.current_spec() and not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    kept = model.state_dict()
    for key, value in loaded.state_dict().items():
        wanted = kept[key]
        rounded = half and wanted.is_floating_point() and key != "head.anchors_px"
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted.half().float() if rounded else wanted), key
    tensors(loaded.train()(images(model)))[0].sum().backward()  # weights from a file can be trained on


@pytest.mark.parametrize("name", TESTED)
def test_a_size_that_does_not_fit_is_refused(name: str) -> None:
    model = tiny(name)
    stride = model.max_stride
    for wrong in ((2 * stride, 2 * stride + 16), (stride + 1, stride), (stride // 2, stride), (0, stride)):
        with pytest.raises(ConfigError, match=f"stride {stride}"):
            model(torch.zeros(1, 3, *wrong))


@pytest.mark.parametrize("name", TRACED)
def test_traces_without_its_checks(name: str) -> None:
    """Exporters trace forward and decode; nothing in them may depend on values or be fixed to the batch size."""
    model = tiny(name).eval()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.model.decode(self.model(x), size_hw(model))

    with torch.no_grad():
        program = torch.export.export(Whole(), (images(model, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        actual = program.module()(images(model, 3))
        expected = Whole()(images(model, 3))
    torch.testing.assert_close(actual, expected)
