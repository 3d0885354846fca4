"""Published RevCol files to weights of ours: every form, both kinds of file, averages, backbones alone, mistakes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

import cloverleaf
import official_files as official
import official_revcol as published
from cloverleaf.cli.import_ import import_
from cloverleaf.cli.info import info
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.training.backbone_weights import take_backbone
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.starting_weights import model_options, provenance
from cloverleaf.weights import export_state_dict, import_checkpoint, import_state_dict
from cloverleaf.weights.backbone import load_backbone
from cloverleaf.weights.importers.revcol import OTHER
from cloverleaf.weights.published_backbone import import_backbone

KEYS = Path(__file__).parents[1] / "golden" / "revcol" / "keys"
app = typer.Typer()
app.command("import")(import_)
app.command("info")(info)


def run(*arguments: object) -> str:
    """Both streams of a command that must succeed."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    return result.output


def state_of(stem: str, seed: int = 0) -> dict[str, Tensor]:
    return official.random_state((KEYS / f"{stem}.txt").read_text(), seed=seed)


def same(model: Any, state: dict[str, Tensor]) -> bool:
    again = export_state_dict(model)
    return all(torch.equal(again[key], value) for key, value in state.items() if "subnet0.alpha" not in key)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("stem", "form", "classes"),
    [("small_config_single_head", "deploy", 10), ("small_config_inter", "training", 10),
     ("small_config_inter_1001", "training", 1001), ("huge_config", "deploy", 10)],
)  # fmt: skip
def test_every_form_is_recognised_and_comes_back(
    stem: str, form: str, classes: int, legacy: bool, tmp_path: Path
) -> None:
    state = state_of(stem)
    path = published.write(tmp_path / "a.pth", published.classifier(state), legacy=legacy)
    done = import_checkpoint(path)
    assert (done.name, done.found, done.classes_found, done.also) == (OTHER, form, classes, ())
    assert (done.checkpoint.source, done.checkpoint.kind) == ("model", "legacy" if legacy else "zip")
    assert same(done.detector, state) and not done.detector.training
    facts = done.detector.metadata
    assert facts is not None and facts.task == "classify" and facts.image_size is None
    assert facts.provenance.startswith(f"imported from a.pth (its entry model, {form} form, sha256 ")
    assert "authors of RevCol" in facts.provenance and "GPL" not in facts.provenance


def test_weights_of_files_meet_images_as_they_were_learned_from(tmp_path: Path) -> None:
    state = state_of("small_config_single_head")
    done = import_checkpoint(published.write(tmp_path / "a.pth", published.classifier(state)))
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = import_state_dict(OTHER, state)((images - mean[:, None, None]) / std[:, None, None]).logits
        assert torch.equal(done.detector(images).logits, wanted)


def test_the_average_is_taken_where_there_is_one(tmp_path: Path) -> None:
    raw, average = state_of("small_config_single_head"), state_of("small_config_single_head", seed=1)
    path = published.write(tmp_path / "a.pth", published.classifier(raw, average))
    done = import_checkpoint(path)
    assert done.checkpoint.source == "state_dict_ema" and same(done.detector, average)
    wrapped = {f"module.{key}": value for key, value in raw.items()}
    done = import_checkpoint(published.write(tmp_path / "b.pth", {"state_dict": wrapped}))
    assert done.checkpoint.source == "state_dict" and same(done.detector, raw)


def test_the_command_says_what_was_found(tmp_path: Path) -> None:
    state = official.published_state(cloverleaf.create_model("revcol-pico", supervision="columns"))
    path, out = published.write(tmp_path / "pico.pth", published.classifier(state)), tmp_path / "x.safetensors"
    said = run("import", path, "-o", out)
    for part in ("zip archive of torch, its entry 'model'", "found revcol-pico in training form: 423 tensors, all",
                 "classes: 1000, without names", "normalises images by itself",
                 "3 earlier columns have classifiers and decoders", f"training form in {out}"):  # fmt: skip
        assert part in said
    assert "warning" not in said and "training stopped" not in said
    assert "imported from pico.pth" in (text := run("info", out)) and "revcol-pico, 1000 classes" in text
    small = tmp_path / "deploy.safetensors"
    assert "deploy form in" in run("import", path, "--model", "revcol-pico", "--form", "deploy", "--half", "-o", small)
    model = cloverleaf.load(small)
    assert model.spec.form == "deploy" and model.spec.name == "revcol-pico" and model.spec.supervision is None
    assert model.metadata is not None and model.metadata.image_size == 224 and model.metadata.task == "classify"
    options = model_options(str(out))  # fine-tuning goes on with what the file has
    assert options["backbone"] == {"normalize": True} and options["supervision"]["decoder"] == "full"
    few = import_checkpoint(path, num_classes=3)
    assert few.transfer is not None and few.detector.num_classes == 3
    assert all(".linear." in name for name in few.transfer.fresh) and len(few.transfer.fresh) == 2 * 4


def test_backbones_alone_start_detectors(tmp_path: Path) -> None:
    state = state_of("small_config_single_head")
    bare = {key: value for key, value in state.items() if not key.startswith("cls")}
    narrow = {"channels": [8, 16, 24, 32], "layers": [1, 1, 2, 1]}
    files = {"classifier": published.classifier(state), "detector": published.detector(bare), "bare": bare}
    for name, content in files.items():
        path, out = published.write(tmp_path / f"{name}.pth", content), tmp_path / f"{name}.safetensors"
        said = run("import", path, "--backbone", "-o", out)
        assert f"{len(bare)} tensors, all accounted for" in said and "ImageNet's mean" in said
        assert ("left out 3 tensors" in said and "roi_head (1)" in said) == (name == "detector")
        source = load_backbone(out)
        assert source.spec.channels == (8, 16, 24, 32) and "authors of RevCol" in source.provenance
        part = ModelConfig(name="revcol-pico+elan-pan+anchor", backbone=narrow, backbone_weights=str(out))
        model = cloverleaf.create_model(part.name, backbone={**narrow, "normalize": True}, neck={"width": 0.25})
        console = Console(file=io.StringIO(), width=1000)
        take_backbone(model, part, console)
        told = console.file.getvalue()  # type: ignore[attr-defined]
        assert "freshly initialised" not in told and "note" not in told
        assert torch.equal(model.backbone.columns[1].scales[0], state["subnet1.alpha0"])
        assert provenance(TrainConfig(model=part)).startswith("started from a backbone imported from")
    half = tmp_path / "half.safetensors"
    run("import", tmp_path / "bare.pth", "--backbone", "--half", "-o", half)
    assert half.stat().st_size < 0.7 * (tmp_path / "bare.safetensors").stat().st_size
    assert load_backbone(half).state["stem.0.weight"].dtype == torch.float32


def test_mistakes_are_named(tmp_path: Path) -> None:
    state = official.published_state(cloverleaf.create_model("revcol-pico"))
    path = published.write(tmp_path / "pico.pth", published.classifier(state))
    for wrong in ("revcol-nano", "gold-yolo-n"):
        with pytest.raises(
            CheckpointError, match=rf"is not {wrong}: its names and shapes are those of revcol-pico in d"
        ):
            import_checkpoint(path, wrong)
    part = {key: value for key, value in state.items() if not key.startswith("subnet2.level1.fusion")}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"8 missing: subnet2\.level1\.fusion\.down.*all tensors"):
        import_checkpoint(tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"part\.pth.*8 missing: subnet2\.level1\.fusion\.down"):
        import_backbone(tmp_path / "part.pth")
    torch.save({key: value for key, value in state.items() if "level2" not in key}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"none\.pth.*channels\.2 = 0"):
        import_checkpoint(tmp_path / "none.pth")
    bare = {key: value for key, value in state.items() if not key.startswith("cls")}
    torch.save(bare, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"backbone without a classifier.*--backbone"):
        import_checkpoint(tmp_path / "bare.pth")
    yolo = official.published_state(cloverleaf.create_model("yolov7-tiny"))
    torch.save(yolo, tmp_path / "yolo.pt")
    with pytest.raises(CheckpointError, match="no backbone of RevCol"):
        import_backbone(tmp_path / "yolo.pt")
    with pytest.raises(ConfigError, match="--num-classes with --backbone"):
        run("import", tmp_path / "bare.pth", "--backbone", "--num-classes", "3")
    whole = path.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.pth is not read"):
        import_checkpoint(tmp_path / "cut.pth")


class _Calls:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return input, ("who are you?",)


def test_the_built_in_function_may_be_named_and_not_called(tmp_path: Path) -> None:
    state = state_of("small_config_single_head")
    for protocol in (2, 4):
        torch.save({"model": state, "input": input}, tmp_path / "a.pth", pickle_protocol=protocol)
        assert same(import_checkpoint(tmp_path / "a.pth").detector, state)
        torch.save({"model": state, "config": _Calls()}, tmp_path / "b.pth", pickle_protocol=protocol)
        with pytest.raises(CheckpointError, match=r"it calls .*input, which is not known to be harmless"):
            import_checkpoint(tmp_path / "b.pth")
