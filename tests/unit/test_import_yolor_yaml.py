"""Files of YOLOR's paper form and of the form published with YOLOv7: recognition, forms, classes, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

import cloverleaf
import official_files as official
from cloverleaf.cli.import_ import import_
from cloverleaf.errors import CheckpointError
from cloverleaf.layers.rep import fold_norm
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import Form
from cloverleaf.weights import export_state_dict, import_checkpoint, import_state_dict
from cloverleaf.weights.importer import published_shapes
from cloverleaf.weights.importers import yolor_yaml, yolov7
from cloverleaf.weights.recognise import recognise

app = typer.Typer()
app.command("import")(import_)
SMALL = "yolor-ssss-s2d"
TWIN = "yolor-ssss-dwt"


def names_of(name: str, form: Form = "training") -> dict[str, Tensor]:
    """Published names and shapes without values."""
    spec = find_spec(name)
    spec = {"training": spec, "deploy": spec.as_deployed(), "fused": spec.as_fused()}[form]
    return {key: torch.zeros(()).expand(shape) for key, shape in published_shapes(spec).items()}


@pytest.fixture(scope="module")
def small() -> Detector:
    """The smallest of them with three classes and random statistics, in evaluation mode."""
    torch.manual_seed(0)
    model = cloverleaf.create_model(SMALL, num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.3, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                assert tensor is not None
                tensor.data.uniform_(low, high)
    return model.eval()


def write(path: Path, state: dict[str, Tensor], plain: tuple[str, ...]) -> Path:
    """A finished training run of the published code: the whole module in float16."""
    return official.write(path, official.stripped(official.official_model(state, plain=plain)))


def run(*arguments: object) -> str:
    """Both streams of a command that must succeed."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "training") for name in yolor_yaml.NAMES), (SMALL, "fused"), ("yolor-csp-v7", "fused")]
)
def test_every_variant_is_recognised(name: str, form: Form) -> None:
    also = {SMALL: (TWIN,), TWIN: (SMALL,)}.get(name, ())
    state = names_of(name, form)
    found = recognise(state)
    assert {found.name, *found.also} == {name, *also} and found.form == form and found.share == 1.0
    assert yolor_yaml.is_like(state) and not yolov7.is_like(state)


def test_other_families_are_not_taken_for_it() -> None:
    assert yolov7.is_like(names_of("yolov7-tiny")) and not yolor_yaml.is_like(names_of("yolov7-tiny"))


@pytest.mark.parametrize(("plain", "name"), [("ReOrg", SMALL), ("DWT", TWIN)])
def test_modules_in_a_file_say_how_it_reads_images(small: Detector, plain: str, name: str, tmp_path: Path) -> None:
    state = official.published_state(small)
    done = import_checkpoint(write(tmp_path / "a.pt", state, (plain,) * 3))
    assert (done.name, done.also, done.found, done.classes_found) == (name, (), "training", 3)
    again = export_state_dict(done.detector)
    assert list(again) == list(state)
    assert all(torch.equal(value, state[key].half().to(value.dtype)) for key, value in again.items())
    assert done.detector.metadata is not None and "GPL-3.0" in done.detector.metadata.provenance


def test_a_state_dict_does_not_say_it_and_the_command_says_so(small: Detector, tmp_path: Path) -> None:
    state = {key: value.half() for key, value in export_state_dict(small).items()}
    torch.save({"model": state}, tmp_path / "a.pt")
    said = run(tmp_path / "a.pt", "-o", tmp_path / "one.safetensors")
    assert f"found {SMALL} in training form: 383 tensors, all accounted for" in said
    assert f"warning: {TWIN} has the same names and shapes as {SMALL}; choose with --model" in said
    said = run(tmp_path / "a.pt", "--model", TWIN, "-o", tmp_path / "other.safetensors", "--form", "fused")
    assert "warning" not in said and f"found {TWIN}" in said
    stems = [cloverleaf.load(tmp_path / f"{name}.safetensors").spec.backbone for name in ("one", "other")]
    assert [getattr(stem, "stem", "") for stem in stems] == ["space-to-depth-8", "wavelet-8"]


def published_fusing(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the paper's code makes of a model: only blocks of one convolution and one norm are folded."""
    fused = dict(state)
    for key in state:
        if not key.endswith(".conv.weight"):
            continue
        block = key.removesuffix("conv.weight")
        norm = nn.BatchNorm2d(len(state[key]), eps=1e-3)
        norm.load_state_dict({name: fused.pop(f"{block}bn.{name}") for name in norm.state_dict()})
        fused[key], fused[f"{block}conv.bias"] = fold_norm(state[key], None, norm)
    return fused


def test_published_fusing_keeps_shared_norms_and_implicit_knowledge_in_force(small: Detector) -> None:
    state = published_fusing(export_state_dict(small))
    assert any(".bn." in key for key in state) and any(".ia." in key for key in state)
    fused = import_state_dict(SMALL, state)
    assert fused.spec.form == "fused" and fused.num_classes == 3
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(fused(images).levels, small(images).levels, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    again = import_state_dict(SMALL, export_state_dict(fused)).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in fused.state_dict().items())
    last = max(int(key.split(".")[1]) for key in state)
    with pytest.raises(CheckpointError, match=rf"left over: model\.{last}\.ia\.1\.implicit"):
        import_state_dict(SMALL, state | {f"model.{last}.ia.1.implicit": torch.zeros(1, 7, 1, 1)})


def test_mistakes_are_named(small: Detector, tmp_path: Path) -> None:
    state = names_of("yolor-p6-v7")
    with pytest.raises(CheckpointError, match="80 classes, not 3"):
        import_state_dict("yolor-p6-v7", state, num_classes=3)
    with pytest.raises(CheckpointError, match=r"missing: model\.3\.cv2\.weight, .*left over: .*model\.3\.cv2\.conv"):
        import_state_dict("yolor-p6", state)
    torch.save(export_state_dict(small), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"those of {SMALL} in training form") as error:
        import_checkpoint(tmp_path / "a.pt", "yolor-csp-v7")
    assert error.value.fix == f"use --model {SMALL}"


@pytest.mark.parametrize(
    "changes", [{"backbone": {"transition": False}}, {"neck": {"norm": "separate"}}, {"head": {"stem": "none"}}]
)
def test_other_blocks_have_no_published_names(changes: dict[str, Any]) -> None:
    narrow: dict[str, Any] = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}}
    assert list(export_state_dict(cloverleaf.create_model(SMALL, **narrow))) == list(published_shapes(find_spec(SMALL)))
    model = cloverleaf.create_model(
        SMALL, **{key: narrow.get(key, {}) | changes.get(key, {}) for key in narrow | changes}
    )
    with pytest.raises(CheckpointError, match="cannot be written with published names"):
        export_state_dict(model)
