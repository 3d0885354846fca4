"""The training of docs/multi-task.md with a narrow model; an interrupted run goes on as if it had not been."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file

import cloverleaf
from cloverleaf.training import fit
from cloverleaf.training.callbacks.progress import ProgressCallback
from documented import run_commands, text_from

TEXT = text_from("multi-task.md", "Use").split("\n## ", 1)[0]
COLUMNS = ("AP", "AP50", "tag_mAP", "tag_F1", "R1", "R5", "retrieval_mAP")
NARROW = ["model.backbone.width=0.125", "model.neck.width=0.125", "model.head.boxes.width=0.125"]


def narrow(words: list[str]) -> list[str]:
    """The command on fewer images and with a narrow model."""
    if words[0] == "data":
        return [word.replace("240", "32").replace("160", "64") for word in words]
    quick = ["--epochs", "1", "--image-size", "64", "--batch-size", "8", "--workers", "0", "--precision", "fp32"]
    settings = ["runtime.threads=1", *(NARROW if "--model" in words else [])]
    return [*words, *quick, *(part for option in settings for part in ("--set", option))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands have run."""
    place = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_commands(TEXT, narrow, lambda words: None)
    return place


def test_runs_are_complete(folder: Path) -> None:
    place = folder / "runs" / "multi"
    with (place / "results.csv").open() as file:
        [row] = csv.DictReader(file)
    assert all(float(row[f"train/{item}"]) > 0 for item in ("box", "obj", "cls", "tag", "id"))
    metrics = json.loads((place / "metrics.json").read_text())
    assert metrics["task"] == "multi" and [name for name in COLUMNS if name not in metrics or name not in row] == []
    model = cloverleaf.load(place / "weights" / "best.safetensors")
    assert model.metadata is not None and len(model.metadata.tag_names) == model.head.tags.linear.out_features == 27
    assert list(model.metadata.identities) == model.head.identities.ids.tolist()
    assert all(cv2.imread(str(place / "pictures" / f"{name}.png")) is not None for name in ("predictions", "training"))
    balanced = cloverleaf.load(folder / "runs" / "balanced" / "weights" / "last.safetensors")
    assert balanced.spec.backbone == model.spec.backbone and balanced.spec.head.boxes == model.spec.head.boxes
    fresh = cloverleaf.create_model("yolov7-tiny", head=balanced.spec.to_dict()["head"]).head.log_variances
    assert all(value != fresh[task] for task, value in balanced.head.log_variances.items())


def test_interrupted_and_resumed_equals_unbroken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs at once, and one, Ctrl-C, resume: the same weights, bit for bit."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(fit, "finish", lambda *_, **__: None)  # judging and drawing take longer than all epochs

    def run(output: str, *, resume: bool = False) -> dict[str, torch.Tensor]:
        changes = ["loss.multi.balance=uncertainty", "runtime.deterministic=true", "data.workers=0", *NARROW]
        changes += ["evaluation.interval=9", "runtime.threads=1", "runtime.precision=fp32"]
        given = {} if resume else {"model": "yolov7-tiny", "data": "shapes", "task": "multi", "epochs": 2,
                                   "image_size": 64, "batch_size": 8, "overrides": changes}  # fmt: skip
        cloverleaf.train(output=output, resume=resume, **given)
        return load_file(folder / output / "weights" / "last.safetensors")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    whole = run("runs/whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressCallback, "epoch_line", stop)
        run("runs/broken")
    resumed = run("runs/broken", resume=True)
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    assert len((folder / "runs" / "broken" / "results.csv").read_text().splitlines()) == 3
