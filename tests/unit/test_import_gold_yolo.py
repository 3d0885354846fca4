"""Published Gold-YOLO files to weights of ours: every form of the head, both kinds of file, runs, classes, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

import cloverleaf
import official_files as official
import official_gold_yolo as gold
from cloverleaf.cli.import_ import import_
from cloverleaf.cli.info import info
from cloverleaf.errors import CheckpointError
from cloverleaf.weights import export_state_dict, import_checkpoint

KEYS = Path(__file__).parents[1] / "golden" / "gold_yolo" / "keys"
FAST = [
    ("gold_yolo-n_distill_ns", "training", False), ("gold_yolo-n_fuse_ab", "training", True),
    ("gold_yolo-n_base_nodfl", "deploy", False), ("gold_yolo-n_base_deploy", "fused", True),
]  # fmt: skip
SLOW = [
    (path.stem, "fused" if "deploy" in path.stem else "deploy" if "base" in path.stem else "training", legacy)
    for path in sorted(KEYS.glob("gold_yolo-*.txt"))
    for legacy in (False, True)
]
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW if case not in FAST)]
N = "gold-yolo-n"
app = typer.Typer()
app.command("import")(import_)
app.command("info")(info)


def run(*arguments: object) -> str:
    """Both streams of a command that must succeed."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def published(stem: str) -> dict[str, Tensor]:
    return official.random_state((KEYS / f"{stem}.txt").read_text())


@pytest.fixture(scope="module")
def distilled() -> dict[str, Tensor]:
    return published("gold_yolo-n_distill_ns")


@pytest.fixture(scope="module")
def file(distilled: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled gold-yolo-n as it is released."""
    model = gold.official_model(distilled)
    assert list(model.state_dict()) == list(distilled)  # the stand-ins are in the published order
    return gold.write(tmp_path_factory.mktemp("published") / "gold_n.pt", gold.released(model))


@pytest.mark.parametrize(("stem", "form", "legacy"), CASES)
def test_every_form_is_recognised_and_comes_back(stem: str, form: str, legacy: bool, tmp_path: Path) -> None:
    name, state = stem.split("_")[1], published(stem)
    path = gold.write(tmp_path / "a.pt", gold.released(gold.official_model(state)), legacy=legacy)
    done = import_checkpoint(path)
    assert (done.name, done.found, done.also, done.activation) == (f"gold-{name}", form, (), "")
    assert done.checkpoint.kind == ("legacy" if legacy else "zip") and done.checkpoint.epoch is None
    assert done.checkpoint.modules >= {"torch.nn.modules.batchnorm.SyncBatchNorm", "yolov6.models.yolo.Model"}
    assert done.detector.spec.form == form and not done.detector.training
    again = export_state_dict(done.detector)
    assert list(again) == list(state)
    for key, value in again.items():
        if form != "fused" or not (".bn." in key or key.startswith(("neck.low_IFM", "neck.high", "neck.Inject"))):
            assert torch.equal(value, state[key]), key
    facts = done.detector.metadata
    assert facts is not None and facts.class_names == () and facts.image_size == 640
    assert facts.provenance.startswith(f"imported from a.pt (its entry model, {form} form, sha256 ")
    assert "GPL-3.0" in facts.provenance


def test_command_says_what_was_found_and_info_where_it_is_from(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    said = run("import", file, "-o", out)
    for part in ("zip archive of torch, its entry 'model'\n", f"found {N} in training form: 935 tensors, all accounted",
                 "classes: 80, without names", "predicts distributions over 0 to 16 cells, direct distances beside",
                 f"training form in {out}"):  # fmt: skip
        assert part in said
    assert "warning" not in said
    text = run("info", out)
    assert "imported from gold_n.pt" in text and "GPL-3.0" in text and N in text
    small = tmp_path / "fused.safetensors"
    assert "fused form in" in run("import", file, "--model", N, "--form", "fused", "--half", "-o", small)
    images = torch.rand(1, 3, 64, 64)
    for path, form in ((out, "training"), (small, "fused")):
        model = cloverleaf.load(path)
        assert model.spec.form == form
        with torch.no_grad():
            boxes, scores = model.decode(model(images), (64, 64))
        assert boxes.shape == (1, 84, 4) and scores.shape == (1, 84, 80)


def test_of_an_unfinished_run_the_average_is_taken(distilled: dict[str, Tensor], tmp_path: Path) -> None:
    constants = ("detect.proj", "detect.proj_conv.weight")
    halved = {k: v / 2 if v.is_floating_point() and k not in constants else v for k, v in distilled.items()}
    names = [f"thing {i}" for i in range(80)]
    ema = gold.official_model(distilled, names=names)
    path = gold.write(tmp_path / "last_ckpt.pt", gold.running(gold.official_model(halved), ema))
    done = import_checkpoint(path)
    assert (done.checkpoint.source, done.checkpoint.epoch) == ("ema", 37)
    assert torch.equal(
        done.detector.backbone.stem.dense.weight,
        distilled["backbone.stem.rbr_dense.conv.weight"],  # type: ignore[union-attr]
    )
    assert done.detector.metadata is not None and done.detector.metadata.class_names[1] == "thing 1"
    assert "training stopped in epoch 37" in run("import", path)


@pytest.mark.parametrize(
    ("stem", "fresh"),
    [("gold_yolo-n_distill_ns", {"classes"}), ("gold_yolo-n_fuse_ab_nodfl", {"classes", "aided_classes"})],
)
def test_another_number_of_classes_starts_only_the_classes_anew(stem: str, fresh: set[str], tmp_path: Path) -> None:
    path = gold.write(tmp_path / "a.pt", gold.released(gold.official_model(published(stem))))
    before, done = import_checkpoint(path).detector.state_dict(), import_checkpoint(path, num_classes=3)
    assert done.detector.num_classes == 3 and done.classes_found == 80 and done.transfer is not None
    expected = {f"head.levels.{i}.{part}.{leaf}" for i in range(3) for part in fresh for leaf in ("weight", "bias")}
    assert set(done.transfer.fresh) == expected
    after = done.detector.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items() if key not in expected)


def test_forms_that_cannot_be_had_back(tmp_path: Path) -> None:
    path = gold.write(tmp_path / "a.pt", gold.released(gold.official_model(published("gold_yolo-n_base"))))
    with pytest.raises(CheckpointError, match=r"in training form: it is in deploy form.*trained further, too"):
        import_checkpoint(path, form="training")


def test_mistakes_are_named(file: Path, distilled: dict[str, Tensor], tmp_path: Path) -> None:
    for wrong in ("gold-yolo-s", "yolov7-tiny"):
        with pytest.raises(
            CheckpointError, match=rf"is not {wrong}: its names and shapes are those of {N} in training form .all agree"
        ):
            import_checkpoint(file, wrong)
    other = official.published_state(cloverleaf.create_model("yolov7-tiny"))
    torch.save(other, tmp_path / "yolov7-tiny.pt")
    with pytest.raises(CheckpointError, match=f"is not {N}: its names and shapes are those of yolov7-tiny"):
        import_checkpoint(tmp_path / "yolov7-tiny.pt", N)
    torch.save({k: v for k, v in distilled.items() if "Inject_p4" not in k}, tmp_path / "part.pt")
    for model in (None, N):
        with pytest.raises(CheckpointError, match=r"15 missing: neck\.Inject_p4\.local_embedding\.conv.*all tensors"):
            import_checkpoint(tmp_path / "part.pt", model)
    backbone = {k.removeprefix("backbone."): v for k, v in distilled.items() if k.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pt")
    with pytest.raises(CheckpointError, match="of no model that can be imported"):
        import_checkpoint(tmp_path / "backbone.pt")
