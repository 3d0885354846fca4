"""Every command and snippet of docs/checkpoints.md runs, in order, on files like the released ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import cloverleaf
import official_files as official
import official_gold_yolo as gold
import official_revcol as revcol
import tiny_datasets
from cloverleaf.cli.main import app

TEXT = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S) for line in block.splitlines()]
NAMES = ["person", "bicycle", "car", "motorcycle", "airplane", "bus", *(f"class {i}" for i in range(6, 80))]
QUICK = ["--epochs", "1", "--image-size", "64", "--batch-size", "2", "--workers", "0", "--precision", "fp32"]


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_datasets.write_yolo(tmp_path)
    Image.new("RGB", (80, 60), "grey").save("photo.jpg")
    torch.manual_seed(0)
    model = cloverleaf.create_model("yolov7-tiny")
    for file, form in (("yolov7-tiny.pt", model.deployed()), ("yolov7-tiny_training.pt", model)):
        state = official.published_state(form)
        module = official.official_model(state, names=NAMES, activation=nn.LeakyReLU(0.1))
        official.write(tmp_path / file, official.stripped(module))
    distilled = official.published_state(cloverleaf.create_model("gold-yolo-n", head={"direct": True}))
    gold.write(tmp_path / "Gold_n_dist.pt", gold.released(gold.official_model(distilled)))
    wavelets = official.published_state(cloverleaf.create_model("yolor-ssss-dwt"))
    official.write(tmp_path / "yolor_s4_dwt.pt", official.stripped(official.official_model(wavelets)))
    columns = official.published_state(cloverleaf.create_model("revcol-pico", supervision="columns"))
    revcol.write(tmp_path / "revcol_tiny_1k.pth", revcol.classifier(columns))
    alone = {key: value for key, value in columns.items() if key.startswith(("stem", "subnet"))}
    revcol.write(tmp_path / "cascade_mask_rcnn_revcol_tiny.pth", revcol.detector(alone))
    said = {}
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "cloverleaf"
        result = CliRunner().invoke(app, words[1:] + QUICK * (words[1] == "train"), catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        said[command] = result.output
    assert len(said) == 13
    first, printed = said[COMMANDS[0]], re.search(r"^```text\n(.*?)^```$", TEXT, re.M | re.S)
    assert printed is not None
    for ours, documented in zip(first.splitlines(), printed[1].splitlines(), strict=True):
        assert ours == documented or (ours.startswith("provenance") and ours.split("sha256")[0] in documented)
    assert "in training form" in said[COMMANDS[2]] and "direct distances beside them" in said[COMMANDS[2]]
    head = cloverleaf.load(tmp_path / "gold-yolo-n-deploy.safetensors").spec.head
    assert (head.reg_max, head.direct) == (0, False)
    finetuning = next(output for command, output in said.items() if " train " in command)
    assert "334 of 343 tensors taken over" in finetuning and "the weights have 80 classes, the data 3" in finetuning
    trained = cloverleaf.load(tmp_path / "runs" / "finetuned" / "weights" / "last.safetensors")
    assert trained.num_classes == 3 and trained.metadata is not None
    assert trained.metadata.provenance.startswith("started from weights imported from yolov7-tiny_training.pt")
    for snippet in re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S):
        exec(snippet, {})  # our own document
    assert cloverleaf.load(tmp_path / "again.safetensors").spec.form == "deploy"
    assert cloverleaf.load(tmp_path / "three.safetensors").num_classes == 3
