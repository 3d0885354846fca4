"""Running a study: order, going on, failures, interruption, shares; a stand-in plays `cloverleaf train`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

from cloverleaf.ablation import cost, launch, work
from cloverleaf.ablation.folder import Folder, claim
from cloverleaf.ablation.launch import Share, reason_of, share_out, with_share
from cloverleaf.ablation.run import ablate
from cloverleaf.errors import ConfigError
from cloverleaf.recipes.small import small
from tiny_datasets import write_coco
from unit.test_ablation_plan import STUDY

STAND_IN = """
import json, os, sys, time, zipfile
from pathlib import Path
import yaml
given = sys.argv[1:]
out = Path(given[given.index("--output") + 1])
study = next(above.parent for above in out.parents if above.name == "runs")
if "--resume" not in given:
    config = yaml.safe_load(Path(given[given.index("--config") + 1]).read_text())
    (out / "checkpoint").mkdir(parents=True)
    (out / "config.yaml").write_text(yaml.safe_dump(config))
else:
    config = yaml.safe_load((out / "config.yaml").read_text())
with zipfile.ZipFile(out / "checkpoint" / "last.ckpt", "w") as archive:
    archive.writestr("state", "x")
with (study / "order.txt").open("a") as file:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    state = "resumed" if "--resume" in given else "new"
    print(out.relative_to(study / "runs"), state, cpus, config["runtime"]["threads"], file=file)
if config["optimizer"]["lr"] > 1:
    print("error: the loss is nan at epoch 1\\n  why: its parts are nan\\n  fix: lower optimizer.lr")
    sys.exit(1)
if config.get("patience") and "--resume" not in given:
    time.sleep(60)
ap = 0.5 + 0.1 * config["optimizer"]["lr"] + 0.01 * config["seed"]
(out / "weights").mkdir(exist_ok=True)
(out / "weights" / ("best.safetensors" if given[0] == "train" else "backbone.safetensors")).write_text("whole")
(out / "results.csv").write_text(f"epoch,AP\\n1,{ap / 2}\\n2,\\n3,{ap}\\n")
run = {"training_seconds": 60.0, "cpus": 1, "precision": "fp32"}
metrics = {"AP": ap, "AP50": ap + 0.2, "APs": None, "best_epoch": 2, "epochs": 2, "run": run}
metrics |= {"loss": 1, "first_loss": 2}  # of pre-training
(out / "metrics.json").write_text(json.dumps(metrics))
(out / "report.html").write_text("whole")
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file in an empty folder that the test stands in, with a dataset beside it."""
    (tmp_path / "data").mkdir()
    write_coco(tmp_path / "data")
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    real = launch.run_command

    def command(*given: Any, **options: Any) -> list[str]:
        return [sys.executable, str(tmp_path / "stand_in.py"), *real(*given, **options)[3:]]

    monkeypatch.setattr(launch, "run_command", command)
    monkeypatch.setattr(cost, "ROUNDS", 2)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def run(study: Path, **options: Any) -> tuple[Any, str]:
    with (study.parent / "said.txt").open("w") as file:
        console = Console(record=True, soft_wrap=True, file=file)
        return ablate(study, data="data", output="out", console=console, **options), console.export_text(clear=False)


def order(study: Path) -> list[str]:
    return [" ".join(line.split()[:2]) for line in (study.parent / "out" / "order.txt").read_text().splitlines()]


def test_runs_seed_by_seed_and_only_once(study: Path) -> None:
    results, said = run(study)
    assert order(study) == ["plain-seed0 new", "other-seed0 new", "plain-seed1 new", "other-seed1 new"]
    assert [result.state for result in results.runs] == ["complete"] * 4
    assert "[2/4] other seed 0: AP 0.500, AP50 0.700 in" in said and "left" in said
    assert {path.name for path in Path("out").glob("table.*")} == {"table.md", "table.csv", "table.png"}
    assert Path("out/curves.csv").read_text().splitlines() == [
        "variation,epoch,n,AP mean,AP sd,AP seed 0,AP seed 1",
        "plain,1,2,0.2526,0.003536,0.2501,0.2551",
        "plain,3,2,0.5052,0.007071,0.5002,0.5102",
        "other,1,2,0.25255,0.003536,0.25005,0.25505",
        "other,3,2,0.5051,0.007071,0.5001,0.5101",
    ]
    assert Path("out/curves.png").stat().st_size > 5000 and "](curves.png)" in Path("out/table.md").read_text()
    run(study)
    assert len(order(study)) == 4


def test_new_variations_and_seeds_may_be_added_but_none_changed(study: Path) -> None:
    run(study, seeds=[0])
    study.write_text(STUDY + "  third: {optimizer.lr: 0.01}\n")
    results, _ = run(study, seeds=[1])
    assert order(study)[2:] == ["plain-seed1 new", "other-seed1 new", "third-seed1 new"]
    assert [(result.variation, result.seed) for result in results.runs if result.state == "complete"] == [
        ("plain", 0), ("plain", 1), ("other", 0), ("other", 1), ("third", 1),
    ]  # fmt: skip
    study.write_text(STUDY.replace("lr: 1e-3", "lr: 2e-3"))
    with pytest.raises(ConfigError, match=r"'other' has changed.*optimizer\.lr was 0\.001 and is 0\.002"):
        run(study)
    study.write_text(STUDY)
    with pytest.raises(ConfigError, match="epochs was 2 and is 3"):
        run(study, changes={"epochs": 3})
    run(study, changes={"data": {"cache": "none"}, "runtime": {"threads": 1}})  # do not change what is learned


def test_a_failed_run_does_not_stop_the_others(study: Path) -> None:
    study.write_text(STUDY + "  hot: {optimizer.lr: 10}\n")
    results, said = run(study)
    failed = [result for result in results.runs if result.state == "failed"]
    assert [(result.variation, result.seed) for result in failed] == [("hot", 0), ("hot", 1)]
    assert failed[0].reason == "the loss is nan at epoch 1: its parts are nan"
    assert sum(result.state == "complete" for result in results.runs) == 4
    assert "hot seed 0: FAILED, the loss is nan" in said
    table = Path("out/table.md").read_text()
    assert "hot, seed 0, failed: the loss is nan at epoch 1: its parts are nan." in table
    assert "| 0, 2 failed | - | - | - |" in table
    run(study, only=["hot"])  # tried again, from its checkpoint
    assert order(study)[-2:] == ["hot-seed0 resumed", "hot-seed1 resumed"]


def test_interrupted_and_gone_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second run: the run is ended, the table has the first, the same command goes on."""
    study.write_text(STUDY.replace("lr: 1e-3", "lr: 1e-3\n    patience: 5"))
    sleep = work.time.sleep

    def until_stuck(seconds: float) -> None:
        sleep(seconds)
        if (Path("out/order.txt")).is_file() and len(order(study)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(work, "time", SimpleNamespace(sleep=until_stuck))
    with pytest.raises(KeyboardInterrupt):
        run(study, command="cloverleaf ablate study.yaml")
    said = (study.parent / "said.txt").read_text()
    assert "stopped; go on with: cloverleaf ablate study.yaml" in said
    stored = json.loads(Path("out/results.json").read_text())
    assert [entry["state"] for entry in stored["runs"]] == ["complete", "missing", "missing", "missing"]
    assert "3 run(s) are still to come" in Path("out/table.md").read_text()
    monkeypatch.setattr(work, "time", SimpleNamespace(sleep=sleep))
    study.write_text(study.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    results, said = run(study)
    assert order(study) == ["plain-seed0 new", "other-seed0 new", "other-seed0 resumed"]
    assert [result.state for result in results.runs] == ["complete", "complete"]


def test_a_run_without_checkpoint_begins_anew(study: Path) -> None:
    """Stopped before its first epoch, or its checkpoint cut off by a power failure."""
    run(study, seeds=[0])
    left = Path("out/runs/plain-seed0")
    (left / "report.html").unlink()
    (left / "checkpoint/last.ckpt").write_bytes(b"PK cut off")
    run(study, seeds=[0])
    assert order(study)[2:] == ["plain-seed0 new"]


@pytest.mark.usefixtures("every_cpu")
def test_several_at_a_time_share_the_cpus(study: Path) -> None:
    cpus = len(launch.usable())
    if cpus < 2:
        pytest.skip("needs two CPUs")
    results, _ = run(study, parallel=2)
    assert all(result.state == "complete" for result in results.runs)
    lines = [line.split() for line in Path("out/order.txt").read_text().splitlines()]
    assert {int(threads) for *_, threads in lines} == {cpus // 2}
    if hasattr(os, "sched_getaffinity"):
        assert {int(own) for _, _, own, _ in lines} == {cpus // 2}
        assert len(os.sched_getaffinity(0)) == cpus
    with pytest.raises(ConfigError, match=f"--parallel {cpus + 1}"):
        run(study, parallel=cpus + 1)


def test_shares() -> None:
    assert share_out(2, [0, 1, 4, 5, 6]) == [Share((0, 1)), Share((4, 5))]
    assert [share.device for share in share_out(3, [0, 1, 2], gpus=2)] == ["cuda:0", "cuda:1", "cuda:0"]
    config = with_share(small(), Share((0, 1), "cuda:1"))
    assert (config.runtime.threads, config.data.workers, config.runtime.device) == (2, 2, "cuda:1")


def test_dry_run_leaves_nothing(study: Path) -> None:
    results, said = run(study, dry_run=True)
    assert results is None and "plain (baseline): 2 to run" in said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda out: (out.mkdir(), (out / "photo.jpg").touch()), ["already in use", "no study"]),
        (lambda out: out.touch(), ["already in use"]),
        (lambda out: (out.mkdir(), (out / "study.yaml").write_text("name: another\n")), ["another study", "'another'"]),
    ],
)
def test_folders_that_are_not_ours(study: Path, make: Any, words: list[str]) -> None:
    make(study.parent / "out")
    with pytest.raises(ConfigError) as caught:
        run(study)
    assert [word for word in words if word not in str(caught.value)] == []


def test_one_study_at_a_time_in_a_folder(study: Path) -> None:
    with claim(Folder(Path("out")), STUDY), pytest.raises(ConfigError, match="in use"):
        run(study)


def test_numbers_on_another_split(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged once per run after it is complete, also when the study was stopped in between."""
    annotations = study.parent / "data" / "annotations"
    (annotations / "test.json").write_text((annotations / "val.json").read_text())
    study.write_text(STUDY.replace("baseline: plain", "baseline: plain\nsplit: test"))
    judged: list[str] = []

    def evaluate(weights: Path, source: str, split: str, **_: Any) -> Any:
        judged.append(split)
        return SimpleNamespace(to_json=lambda: {"AP": 0.25, "AP50": 0.5, "APs": None})

    monkeypatch.setattr(work, "evaluate", evaluate)
    results, _ = run(study, seeds=[0])
    assert {result.metrics["AP"] for result in results.runs} == {0.25} and judged == ["test", "test"]
    Path("out/runs/plain-seed0/judged-test.json").unlink()
    run(study, seeds=[0])
    assert len(judged) == 3 and len(order(study)) == 2


@pytest.mark.parametrize(
    ("code", "log", "reason"),
    [
        (1, "epoch 1\nerror: no space\n  why: the disk is full\n  fix: free some\n", "no space: the disk is full"),
        (1, "error: odd\n", "odd"),
        (1, "Traceback\n  File x\nRuntimeError: odd\n", "exit code 1: RuntimeError: odd"),
        (-signal.SIGKILL, "epoch 1\n", "killed by SIGKILL (out of memory?)"),
        (-signal.SIGSEGV, "", "killed by SIGSEGV"),
        (3, "", "exit code 3: it said nothing"),
    ],
)
def test_reasons(tmp_path: Path, code: int, log: str, reason: str) -> None:
    path = tmp_path / "log"
    path.write_text("error: of an earlier attempt\n" + log)
    assert reason_of(code, path, start=len("error: of an earlier attempt\n")) == reason


def test_table_again_from_the_numbers_alone(study: Path) -> None:
    run(study)
    before = {path.name: path.read_bytes() for path in Path("out").glob("table.[mc]*")}
    for path in Path("out").glob("table.*"):
        path.unlink()
    text = study.read_text()
    ablate(study, output="out", table_only=True)
    assert {path.name: path.read_bytes() for path in Path("out").glob("table.[mc]*")} == before
    assert Path("out/table.png").stat().st_size > 5000
    study.write_text(text.replace("baseline: plain", "baseline: other\ntitle: Turned round"))
    turned = ablate(study, output="out", table_only=True)
    assert turned is not None and list(turned.variations) == ["other", "plain"]
    assert "# Turned round" in Path("out/table.md").read_text()
    assert turned.costs["other"].relative == 1
    for broken in ("{", json.dumps({"version": 1}), None):
        target = Path("out/results.json")
        target.unlink(missing_ok=True) if broken is None else target.write_text(broken)
        with pytest.raises(ConfigError, match=r"results\.json"):
            ablate(study, output="out", table_only=True)


def test_configuration_of_a_run_is_a_whole_one(study: Path) -> None:
    run(study, seeds=[1], only=["other"])
    values = yaml.safe_load(Path("out/configs/other-seed1.yaml").read_text())
    assert values["seed"] == 1 and values["optimizer"]["lr"] == 0.001 and Path(values["data"]["source"]).is_absolute()
