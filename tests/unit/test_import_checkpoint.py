"""From published files to weights of ours: recognition, forms, classes, what is said, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

import cloverleaf
import official_files as official
from cloverleaf.cli.import_ import import_
from cloverleaf.cli.info import info
from cloverleaf.errors import CheckpointError, ConfigError, UnknownModelError
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import Form
from cloverleaf.weights import export_state_dict, import_checkpoint, with_num_classes
from cloverleaf.weights.importers import yolov7
from cloverleaf.weights.recognise import recognise

app = typer.Typer()
app.command("import")(import_)
app.command("info")(info)

CASES = [
    pytest.param(name, form, id=f"{name}-{form}", marks=() if name == "yolov7-tiny" else pytest.mark.slow)
    for name in yolov7.NAMES
    for form in ("training", "deploy", "fused")
]
TINY = "yolov7-tiny"


def run(*arguments: object) -> str:
    """Both streams of a command that must succeed."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def detector(name: str, form: Form = "training", num_classes: int = 80) -> Detector:
    torch.manual_seed(0)
    model = cloverleaf.create_model(name, num_classes=num_classes)
    return {"training": lambda: model, "deploy": model.deployed, "fused": model.fused}[form]()


def activation(name: str) -> nn.Module:
    return nn.LeakyReLU(0.1) if name == TINY else nn.SiLU()


def write(path: Path, state: dict[str, Tensor], name: str = TINY, names: list[str] | None = None) -> Path:
    model = official.official_model(state, names=names, activation=activation(name))
    return official.write(path, official.stripped(model))


@pytest.fixture(scope="module")
def training() -> dict[str, Tensor]:
    return official.published_state(detector(TINY))


@pytest.fixture(scope="module")
def file(training: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of yolov7-tiny in training form."""
    return write(tmp_path_factory.mktemp("published") / "yolov7-tiny_training.pt", training)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_every_variant_is_recognised_and_comes_back(name: str, form: Form, tmp_path: Path) -> None:
    state = official.published_state(detector(name, form))
    if form == "fused":  # what the published code leaves behind when it fuses a training form
        row = max(int(key.split(".")[1]) for key in state)
        state |= {f"model.{row}.{part}.0.implicit": torch.ones(1, 8, 1, 1) for part in ("ia", "im")}
    path = write(tmp_path / "a.pt", state, name)
    done = import_checkpoint(path)
    assert (done.name, done.found, done.also, done.activation) == (name, form, (), "")
    assert done.detector.spec.name == name and done.detector.spec.form == form and not done.detector.training
    again = export_state_dict(done.detector)
    assert set(state) - set(again) == {key for key in state if form == "fused" and (".ia." in key or ".im." in key)}
    for key, value in again.items():
        assert value.dtype == (torch.float32 if value.is_floating_point() else torch.int64)
        assert torch.equal(value, state[key].half().float() if value.is_floating_point() else state[key]), key
    facts = done.detector.metadata
    assert facts is not None and facts.class_names[:2] == ("class 0", "class 1")
    assert facts.image_size == (640 if len(done.detector.strides) == 3 else 1280)
    assert facts.provenance.startswith(f"imported from a.pt (its entry model, {form} form, sha256 ")
    assert "GPL-3.0" in facts.provenance


@pytest.mark.parametrize(
    ("name", "size"), [(TINY, 64), *(pytest.param(n, 128, marks=pytest.mark.slow) for n in ("yolov7", "yolov7-w6"))]
)
def test_every_form_gives_the_same_boxes(name: str, size: int, tmp_path: Path) -> None:
    model = detector(name, num_classes=3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    path = write(tmp_path / "a.pt", export_state_dict(model), name)
    images = torch.rand(1, 3, size, size)
    results = []
    for form in ("training", "deploy", "fused"):
        converted = import_checkpoint(path, name, form=form).detector  # type: ignore[arg-type]
        assert converted.spec.form == form and converted.metadata is not None
        with torch.no_grad():
            results.append(converted.decode(converted(images), (size, size)))
    for boxes, scores in results[1:]:
        torch.testing.assert_close(boxes, results[0][0], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(scores, results[0][1], rtol=1e-3, atol=1e-4)


def test_command_says_what_was_found_and_info_where_it_is_from(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "tiny.safetensors"
    said = run("import", file, "--model", TINY, "-o", out)
    for part in ("zip archive of torch, its entry 'model'", "found yolov7-tiny in training form: 344 tensors, all",
                 "(float16, int64)", "80 (class 0, ", "and 74 more)", f"training form in {out}"):  # fmt: skip
        assert part in said
    assert "warning" not in said
    loaded = cloverleaf.load(out)
    assert loaded.spec.form == "training" and {p.dtype for p in loaded.parameters()} == {torch.float32}
    text = run("info", out)
    assert "imported from yolov7-tiny_training.pt" in text and "GPL-3.0" in text
    folded = run("import", file, "--form", "fused", "--half", "-o", tmp_path)
    smaller = tmp_path / "yolov7-tiny_training.safetensors"
    assert f"fused form in {smaller}" in folded and smaller.stat().st_size < 0.51 * out.stat().st_size
    assert cloverleaf.load(smaller).spec.form == "fused"


def test_another_number_of_classes_starts_only_the_head_anew(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "three.safetensors"
    said = run("import", file, "-o", out, "--num-classes", 3)
    assert "kept 334 tensors; started anew for 3 classes: head.levels.0.project.weight" in said
    before, after = import_checkpoint(file).detector.state_dict(), cloverleaf.load(out)
    assert after.num_classes == 3 and after.metadata is not None and after.metadata.class_names == ()
    anew = [key for key, value in after.state_dict().items() if value.shape != before[key].shape]
    assert len(anew) == 9 and all(key.split(".")[3] in ("project", "multiply") for key in anew)
    for key, value in after.state_dict().items():
        assert key in anew or torch.equal(value, before[key]), key
    assert run("import", file, "-o", out, "--num-classes", 80, "--force").count("kept") == 0


@pytest.mark.parametrize("form", ["training", "deploy", "fused"])
def test_new_heads_of_every_form_and_of_auxiliary_heads(form: Form) -> None:
    narrow = {"width": 0.125}
    model = cloverleaf.create_model(TINY, backbone=narrow, neck=narrow, head={**narrow, "auxiliary": True})
    model = {"training": lambda: model.train(), "deploy": model.deployed, "fused": model.fused}[form]()
    model.head.set_anchors(model.anchors_px * 1.25)
    state = torch.get_rng_state()
    changed, result = with_num_classes(model, 7)
    assert torch.equal(state, torch.get_rng_state())
    assert changed.num_classes == 7 and model.num_classes == 80
    assert changed.spec.form == form and changed.training == model.training
    assert torch.equal(changed.anchors_px, model.anchors_px)
    parts = {"project.weight", "project.bias"} | ({"multiply.value"} if form == "training" else set())
    expected = {f"head.levels.{i}.{part}" for i in range(3) for part in parts}
    if form == "training":
        expected |= {f"head.auxiliary.{i}.project.{part}" for i in range(3) for part in ("weight", "bias")}
    assert set(result.fresh) == expected and len(result.taken) + len(result.fresh) == len(model.state_dict())
    again, _ = with_num_classes(model, 7)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in changed.state_dict().items())
    with pytest.raises(ConfigError, match="num_classes"):
        with_num_classes(model, 0)


def test_the_wrong_model_is_answered_with_the_right_one(
    file: Path, training: dict[str, Tensor], tmp_path: Path
) -> None:
    for wrong in ("yolov7", "yolov7x"):
        with pytest.raises(
            CheckpointError, match=r"those of yolov7-tiny in training form .all agree.*--model yolov7-tiny"
        ):
            import_checkpoint(file, wrong)
    with pytest.raises(UnknownModelError, match="yolov7-tiny"):
        import_checkpoint(file, "yolov7-tinny")
    with pytest.raises(CheckpointError, match=r"is not elan-tiny\+elan-pan\+anchor: its names and shapes are those of"):
        import_checkpoint(file, "elan-tiny+elan-pan+anchor")
    path = tmp_path / "other.pt"
    torch.save({f"layer{i}.bn.weight": torch.zeros(2) for i in range(300)}, path)
    with pytest.raises(CheckpointError, match=r"of no model that can be imported.*0% of its tensors agree"):
        import_checkpoint(path)
    torch.save({key: value for key, value in training.items() if "model.5." not in key}, path)
    for model in (None, TINY):
        with pytest.raises(CheckpointError, match=r"5 missing: model\.5\.conv\.weight.*all tensors"):
            import_checkpoint(path, model)


def test_recognition_needs_no_exact_match() -> None:
    state = export_state_dict(empty_detector(replace(find_spec("yolov7"), num_classes=5).as_deployed()))
    likeness = recognise(state)
    assert (likeness.name, likeness.form, likeness.share, likeness.also) == ("yolov7", "deploy", 1.0, ())
    damaged = {key: value for key, value in state.items() if ".3." not in key}
    assert recognise(damaged).name == "yolov7" and recognise(damaged).share < 1
    assert not recognise({}).is_likely


def test_twins_are_told_apart_by_their_activation(file: Path, training: dict[str, Tensor], tmp_path: Path) -> None:
    silu = write(tmp_path / "silu.pt", training, "yolov7-tiny-silu")
    assert import_checkpoint(silu).name == "yolov7-tiny-silu"
    assert "use silu, which yolov7-tiny does not" in run(
        "import", silu, "--model", TINY, "-o", tmp_path / "a.safetensors"
    )
    torch.save(training, tmp_path / "state.pt")
    done = import_checkpoint(tmp_path / "state.pt")
    assert (done.name, done.also) == (TINY, ("yolov7-tiny-silu",))
    said = run("import", tmp_path / "state.pt", "-o", tmp_path / "b.safetensors")
    assert "yolov7-tiny-silu has the same names and shapes" in said and "80, without names" in said


def test_forms_that_cannot_be_had_back(tmp_path: Path) -> None:
    path = write(tmp_path / "deploy.pt", official.published_state(detector(TINY, "deploy")))
    with pytest.raises(CheckpointError, match="cannot be imported in training form: it is in deploy form"):
        import_checkpoint(path, form="training")
    path = write(tmp_path / "fused.pt", official.published_state(detector(TINY, "fused")))
    for form in ("training", "deploy"):
        with pytest.raises(CheckpointError, match=f"cannot be imported in {form} form: it is in fused form"):
            import_checkpoint(path, form=form)  # type: ignore[arg-type]
    assert list(tmp_path.glob("*.safetensors")) == []


def test_doubtful_contents_are_told(training: dict[str, Tensor], tmp_path: Path) -> None:
    broken = {**training, "model.5.bn.bias": torch.full_like(training["model.5.bn.bias"], torch.nan)}
    path = write(tmp_path / "odd.pt", broken, names=["cat", "dog"])
    said = run("import", path)
    assert "its 2 class names do not fit" in said and "1 tensors hold NaN or infinities: model.5.bn.bias" in said
    facts = cloverleaf.load(path.with_suffix(".safetensors")).metadata
    assert facts is not None and facts.class_names == ()


def test_outputs_are_not_overwritten_unasked(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="is there already"):
        run("import", file, "-o", out)
    assert out.read_bytes() == b"precious"
    with pytest.raises(ConfigError, match=r"end in \.safetensors"):
        run("import", file, "-o", tmp_path / "a.pt")
    run("import", file, "-o", out, "--force")
    with pytest.raises(ConfigError, match="would overwrite itself"):
        run("import", out, "--force")
    with pytest.raises(CheckpointError, match="it is a folder"):
        run("import", ".")
    with pytest.raises(CheckpointError, match="already"):
        run("import", out, "-o", tmp_path / "b.safetensors")


def test_other_commands_say_that_a_checkpoint_must_be_imported(file: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"a checkpoint of PyTorch, not a safetensors file.*cloverleaf import .*\.pt"
    ):
        cloverleaf.load(file)
