"""Every command of docs/distillation.md runs, in order; its runs say whom they learned from and can be resumed."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import cloverleaf
import tiny_datasets
from cloverleaf.cli.main import app
from cloverleaf.training import finish
from cloverleaf.training.callbacks.record import RecordCallback

TEXT = (Path(__file__).parents[2] / "docs" / "distillation.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S) for line in block.splitlines()]
QUICK = [
    "--epochs", "1", "--image-size", "64", "--batch-size", "2", "--workers", "0", "--precision", "fp32", "--device",
    "cpu", "--set", "model.backbone.width=0.0625",
]  # fmt: skip


def run(*words: str) -> str:
    result = CliRunner().invoke(app, [*words], catch_exceptions=False)
    assert result.exit_code == 0, f"{words}\n{result.output}"
    return result.output


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a dataset; runs there draw no pictures, which takes longer than all the rest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finish, "draw_run", lambda *args, **options: None)
    tiny_datasets.write_yolo(tmp_path)
    return tmp_path


def losses(folder: Path) -> list[str]:
    with (folder / "results.csv").open() as file:
        return [name.removeprefix("train/") for name in next(csv.reader(file)) if name.startswith("train/")]


def test_every_command_runs(workplace: Path) -> None:
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[:2] == ["cloverleaf", "train"]
        run(*words[1:], *QUICK)
    runs, teacher = workplace / "runs", "runs/first/weights/best.safetensors"
    assert sorted(losses(runs / "first")) == ["box", "cls", "dfl"]
    for name in ("second", "other"):
        assert {"distill_cls", "distill_dfl"} < set(losses(runs / name))
        model = cloverleaf.load(runs / name / "weights" / "best.safetensors")
        assert model.metadata is not None and model.metadata.teacher == teacher
        assert json.loads((runs / name / "metrics.json").read_text())["run"]["teacher"] == teacher
        assert f"Distilled from</dt><dd>{teacher}" in re.sub(r">\s+<", "><", (runs / name / "report.html").read_text())
    assert cloverleaf.load(runs / "step1" / "weights" / "best.safetensors").spec.head.aided
    step2 = cloverleaf.load(runs / "step2" / "weights" / "best.safetensors").spec.head
    assert step2.direct and not step2.aided


def test_interrupted_and_resumed_equals_unbroken(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--data", "data.yaml", *QUICK, "--deterministic", "--model", "csp-tiny+elan-pan+dense"]
    run("train", *small, "--output", "teacher")
    taught = [*small, "--epochs", "3", "--teacher", "teacher/weights/last.safetensors"]
    taught += ["--set", "distillation.teacher_mode=train", "--set", "distillation.feature=10"]
    run("train", *taught, "--output", "whole")

    after = RecordCallback.on_train_epoch_end

    def stop_after_two(self: RecordCallback, trainer: object, module: object) -> None:
        after(self, trainer, module)
        if len(self.rows) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RecordCallback, "on_train_epoch_end", stop_after_two)
        CliRunner().invoke(app, ["train", *taught, "--output", "parts"])
    assert not (workplace / "parts" / "report.html").exists()
    run("train", "--resume", "--output", "parts")
    first, second = (load_file(workplace / name / "weights" / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    checkpoint = torch.load(workplace / "parts" / "checkpoint" / "last.ckpt", weights_only=True)
    assert len(checkpoint["teacher"]) == 64 and not any("teacher" in name for name in checkpoint["state_dict"])
