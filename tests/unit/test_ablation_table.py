"""The table: what it says about a study with a failed run, undefined numbers, one seed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloverleaf.ablation.cost import Cost
from cloverleaf.ablation.folder import Folder
from cloverleaf.ablation.markdown import to_markdown
from cloverleaf.ablation.results import Results, RunResult, read_run
from cloverleaf.ablation.rows import make_rows
from cloverleaf.ablation.statistics import spread
from cloverleaf.ablation.table import to_csv
from cloverleaf.ablation.texts import clock, count_text, mean_text, number, p_text
from cloverleaf.recipes.catalog import get_recipe
from cloverleaf.training.config_io import update, write_config

AP = {"plain": [0.500, 0.510, 0.505], "better": [0.600, 0.610, 0.602], "same": [0.503, 0.509]}


def result(variation: str, seed: int, ap: float) -> RunResult:
    metrics = {"AP": ap, "AP50": ap + 0.2, "APs": None}
    return RunResult(
        variation=variation, seed=seed, state="complete", metrics=metrics, best_epoch=9, epochs=10,
        training_seconds=100.0 + seed, cpus=2, precision="bf16",
    )  # fmt: skip


@pytest.fixture
def results() -> Results:
    cost = Cost(form="a", parameters=1_571_234, training_parameters=1_801_234, flops=1_740_000_000, image_size=256,
                latency_ms=12.34, relative=1.0)  # fmt: skip
    runs = [result(name, seed, value) for name, values in AP.items() for seed, value in enumerate(values)]
    runs.append(RunResult(variation="same", seed=2, state="failed", reason="the loss | is nan"))
    return Results(
        name="study", title="A title", question="Which\nis best?", baseline="plain", split="val", val_split="val",
        model="yolov7-tiny", recipe="small", epochs=10, variations={name: {} for name in AP}, shared={},
        dataset={"name": "cells", "train_images": 205, "judged_images": 87, "classes": 3, "image_size": 256},
        costs={"plain": cost, "same": cost}, latency={"device": "cpu", "threads": 2, "rounds": 50},
        runs=tuple(runs), environment={},
    )  # fmt: skip


def test_markdown_says_all(results: Results) -> None:
    text = to_markdown(results, make_rows(results))
    for line in (
        "# A title",
        "Which is best?",
        "yolov7-tiny, recipe `small`, 10 epochs at 256 px; cells: 205 training images, judged on 87 (val).",
        "| plain (baseline) | 3 | 0.505 ± 0.005 | 0.705 ± 0.005 | - | 1.57 M (1.80 M) | 1.74 | 12.34 (1.00x) | 1:41 |",
        "| same | 2, 1 failed | 0.506 ± 0.004 | 0.706 ± 0.004 | - | 1.57 M (1.80 M) | 1.74 | 12.34 (1.00x) | 1:40 |",
        "| plain | 0.500 / 0.700 / - | 0.510 / 0.710 / - | 0.505 / 0.705 / - |",
        "- same, seed 2, failed: the loss \\| is nan.",
    ):
        assert line in text.splitlines(), line
    better = next(line for line in text.splitlines() if line.startswith("| better | +0.099 ["))
    assert "| yes (p < 0.001) |" in better and better.endswith("| - | no claim |")
    same = next(line for line in text.splitlines() if line.startswith("| same | +0.001 ["))
    assert "| no (p 0.9" in same
    assert "2 x multiply-accumulates" in text and "could not have been told from chance: AP 0.0" in text
    assert "a little too high" in text


def test_one_seed_makes_no_claim(results: Results) -> None:
    single = replace(results, runs=tuple(run for run in results.runs if run.seed == 0), split="test")
    text = to_markdown(single, make_rows(single))
    assert "| better | - | no claim | - | no claim | - | no claim |" in text
    assert "No claim is made" in text and "yes" not in text and "±" not in text.split("## How to read it")[0]
    assert "a little too high" not in text  # judged on images that chose nothing


def test_a_baseline_alone(results: Results) -> None:
    alone = replace(results, variations={"plain": {}}, costs={}, latency={})
    text = to_markdown(alone, make_rows(alone))
    assert "Against" not in text and "Latency" not in text and "| - | - | - |" in text


def test_other_tasks_have_other_columns(results: Results) -> None:
    runs = tuple(
        replace(run, metrics={"mIoU": run.metrics["AP"], "mAcc": 0.7, "pixel_accuracy": 0.9}) if run.metrics else run
        for run in results.runs
    )
    pixels = replace(results, task="semantic", runs=runs)
    text, line = to_markdown(pixels, make_rows(pixels)), to_csv(pixels, make_rows(pixels)).splitlines()[0]
    assert "| variation | runs | mIoU | mAcc | pixel accuracy | parameters (trained) |" in text
    assert "| better | +0.099 [" in text and "without the subdivision" in text and "AP" not in text
    assert "mIoU seed 0" in line and "AP" not in line


def test_several_tasks_have_their_metrics_and_one_of_them_leads(results: Results) -> None:
    numbers = {"AP50": 0.3, "tag_mAP": None, "tag_F1": 0.5, "R1": 0.9, "R5": 1.0, "retrieval_mAP": 0.4}
    runs = tuple(replace(run, metrics={**numbers, **run.metrics}) if run.metrics else run for run in results.runs)
    several = replace(results, task="multi", runs=runs)
    heading = "| variation | runs | {} | parameters (trained) |"
    found = "tag mAP | tag F1 | R1 | R5 | retrieval mAP"
    assert heading.format(f"AP | AP50 | {found}") in to_markdown(several, make_rows(several))
    led = replace(several, metric="R1")
    assert heading.format("R1 | AP | AP50 | tag mAP | tag F1 | R5 | retrieval mAP") in to_markdown(led, make_rows(led))
    assert led.table.judged == "R1" and several.table.judged == "AP"


def test_tasks_that_a_run_has_switched_off_have_no_numbers(tmp_path: Path) -> None:
    """Boxes that are not learned have an AP all the same: what features that move away leave of it."""
    numbers: dict[str, Any] = {"AP": 0.01, "tag_mAP": 0.4, "tag_F1": 0.5, "R1": 0.1, "retrieval_mAP": 0.2}
    facts = {"training_seconds": 60.0, "cpus": 1, "precision": "fp32"}
    found = {}
    for name, gains in (("all", {}), ("tags", {"boxes": 0, "embeddings": 0})):
        run = tmp_path / "runs" / f"{name}-seed0"
        (run / "weights").mkdir(parents=True)
        (run / "weights" / "best.safetensors").touch()
        write_config(update(get_recipe("multi"), {"loss": {"multi": gains}}), run / "config.yaml")
        (run / "metrics.json").write_text(json.dumps({**numbers, "best_epoch": 1, "epochs": 1, "run": facts}))
        (run / "results.csv").write_text("epoch,AP,tag_mAP\n1,0.01,0.4\n")
        (run / "report.html").touch()
        found[name] = read_run(Folder(tmp_path), name, 0, "val", "val", "multi")
    assert {key: found["all"].metrics[key] for key in numbers} == numbers and found["all"].curve == {1: 0.01}
    left = {**dict.fromkeys(numbers), "tag_mAP": 0.4, "tag_F1": 0.5}
    assert {key: found["tags"].metrics[key] for key in numbers} == left and found["tags"].curve == {}


def test_csv_holds_every_number(results: Results) -> None:
    lines = {line["variation"]: line for line in csv.DictReader(io.StringIO(to_csv(results, make_rows(results))))}
    assert float(lines["better"]["AP mean"]) == pytest.approx(0.604)
    assert [lines["same"][f"AP seed {seed}"] for seed in range(3)] == ["0.503", "0.509", ""]
    assert lines["better"]["AP difference outside"] == "True" and lines["plain"]["AP difference p"] == ""
    assert lines["plain"]["AP-small mean"] == "" and lines["plain"]["flops"] == "1740000000"
    assert lines["better"]["parameters"] == "" and lines["same"]["failed"] == "1"


def test_numbers_as_text() -> None:
    assert [clock(seconds) for seconds in (9.6, 161, 3723, float("nan"))] == ["0:10", "2:41", "1:02:03", "-"]
    assert [count_text(count) for count in (98_123, 100_000, 6_230_000)] == ["98.1 k", "0.10 M", "6.23 M"]
    assert [p_text(p) for p in (0.0, 0.0494, 1.0)] == ["< 0.001", "0.049", "1.000"]
    assert [number(value) for value in (None, float("nan"), 0.5)] == ["-", "-", "0.500"]
    assert [mean_text(spread(values)) for values in ([], [0.5], [0.5, 0.6])] == ["-", "0.500", "0.550 ± 0.071"]
