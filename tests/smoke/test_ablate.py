"""`cloverleaf ablate` with real training: the commands of docs/ablate.md on a tiny study; the project's own studies."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cloverleaf.ablation.plan import make_plan
from cloverleaf.ablation.study import read_study
from cloverleaf.cli.main import app
from tiny_datasets import write_coco

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "ablations").glob("*.yaml"))


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "my-images"
    folder.mkdir()
    return write_coco(folder)


def documented(file: str = "study.yaml") -> tuple[str, list[list[str]]]:
    """A study of the document, and the commands about it."""
    text = (ROOT / "docs" / "ablate.md").read_text(encoding="utf-8")
    study = re.findall(rf"^```yaml\n(# {file}\n.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    lines = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    return study, [shlex.split(line)[1:] for line in lines if file in line]


@pytest.mark.usefixtures("every_cpu")
def test_documented_commands_run(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, commands = documented()
    study = yaml.safe_load(text) | {"epochs": 1, "seeds": [0, 1]}
    narrow = {f"model.{part}.width": 0.125 for part in ("backbone", "neck", "head")}
    study["set"] |= {"data.image_size": 64, "data.workers": 0, "runtime.precision": "fp32", **narrow}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("my-images").symlink_to(coco)
    Path("study.yaml").write_text(yaml.safe_dump(study))
    threads, said = torch.get_num_threads(), []
    for words in commands:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}: {result.output}"
        said.append(result.output)
    torch.set_num_threads(threads)
    assert "auxiliary: 2 to run" in said[0] and "[4/4] auxiliary seed 1: AP " in said[1]
    assert "auxiliary: 2 complete" in said[3] and "[" not in said[3], "complete runs were repeated"

    trial = Path("runs/trial/runs")
    assert [path.name for path in trial.iterdir()] == ["plain-seed0"]
    assert yaml.safe_load((trial / "plain-seed0" / "config.yaml").read_text())["epochs"] == 2
    folder = Path("runs/ablate/auxiliary-head")
    for name in ("report.html", "weights/best.safetensors", "results.csv"):
        assert (folder / "runs" / "auxiliary-seed1" / name).stat().st_size
    with (folder / "table.csv").open() as file:
        plain, auxiliary = csv.DictReader(file)
    assert plain["runs"] == "2" and auxiliary["runs"] == "2"
    assert plain["parameters"] == auxiliary["parameters"] and plain["latency_ms"] == auxiliary["latency_ms"]
    assert int(plain["training_parameters"]) < int(auxiliary["training_parameters"])
    metrics = json.loads((folder / "runs" / "plain-seed1" / "metrics.json").read_text())
    assert float(plain["AP seed 1"] or 0) == pytest.approx(metrics["AP"] or 0)
    assert "## Against plain" in (folder / "table.md").read_text()
    assert (folder / "table.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("file", "runs"), [("study.yaml", 6), ("steps.yaml", 9)])
def test_documented_studies_are_valid(coco: Path, tmp_path: Path, file: str, runs: int) -> None:
    path = tmp_path / file
    path.write_text(documented(file)[0])
    assert len(make_plan(*read_study(path), data=coco).runs) == runs


def test_a_step_is_made_and_used(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented study with steps, so small that it takes a moment; the teacher is not asked for."""
    text, commands = documented("steps.yaml")
    study = yaml.safe_load(text) | {"epochs": 1}
    study["set"] = {"data.image_size": 64, "data.workers": 0, "runtime.precision": "fp32", "model.neck.depth": 1}
    study["set"]["model.backbone.width"] = 0.125
    study["prepare"]["backbone"] |= {"epochs": 1, "set": {"data.workers": 0}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("my-images").symlink_to(coco)
    Path("steps.yaml").write_text(yaml.safe_dump(study))
    threads, said = torch.get_num_threads(), []
    for words in (commands[0], [*commands[0][:-1], "--only", "pretrained", "--seeds", "0"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}: {result.output}"
        said.append(result.output)
    torch.set_num_threads(threads)
    assert "prepare teacher: 1 to run; train gold-yolo-n, recipe `small`, 60 epochs at 64 px on 2 images" in said[0]
    assert "[1/2] prepare backbone: loss " in said[1] and "[2/2] pretrained seed 0: AP " in said[1]
    folder = Path("runs/ablate/start")
    assert "backbone from " in (folder / "logs" / "pretrained-seed0.log").read_text()
    table = (folder / "table.md").read_text()
    assert "| backbone | pretrain efficient-rep(width=0.125)" in table and "| teacher | train gold-yolo-n" in table
    with (folder / "curves.csv").open() as file:
        assert [row["variation"] for row in csv.DictReader(file)] == ["pretrained"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_project_are_valid(path: Path, shapes: Path) -> None:
    study, lines = read_study(path)
    plan = make_plan(study, lines, data=shapes)
    assert path.stem == study.name and study.data is None
    configs = {repr((variation.config, variation.needs)) for variation in plan.variations}
    assert len(configs) == len(plan.variations), "two variations are the same"
