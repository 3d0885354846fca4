"""Models with an auxiliary head are trained by the same command, whatever that head learns."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import cloverleaf as cl
from smoke.conftest import cloverleaf

NARROW = [f"model.{part}.width=0.0625" for part in ("backbone", "neck", "head")]
QUICK = ["--workers", "0", "--precision", "fp32", "--device", "cpu", "--image-size", "64", "--batch-size", "16"]


def sets(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.mark.parametrize(
    "options",
    [
        # four levels, the published recipe; at 64 px the coarsest map is a single cell
        ["--model", "yolov7-w6", "--recipe", "yolov7-p6", "--epochs", "1", *sets("model.head.auxiliary_width=0.0625")],
        # any other model; the small-set recipe spends its first epoch with the plain assigner
        [
            "--model", "yolov7-tiny", "--epochs", "2",
            *sets("model.head.auxiliary=true", "loss.auxiliary=independent", "loss.auxiliary_gain=0.5"),
        ],
    ],
    ids=["p6", "tiny"],
)  # fmt: skip
def test_train(shapes: Path, tmp_path: Path, options: list[str]) -> None:
    run = tmp_path / "run"
    cloverleaf("train", *options, "--data", shapes, "--output", run, *QUICK, *sets(*NARROW))
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row[f"train/{item}"]) > 0 for row in rows for item in ("box", "obj", "cls"))
    assert sorted(name for name in rows[0] if name.startswith("train/")) == ["train/box", "train/cls", "train/obj"]
    model = cl.load(run / "weights" / "best.safetensors")
    assert model.spec.head.auxiliary and any(name.startswith("head.auxiliary") for name in model.state_dict())


def test_an_option_without_effect_is_refused(shapes: Path, tmp_path: Path) -> None:
    options = ["--data", shapes, "--output", tmp_path / "run", *QUICK, *sets(*NARROW, "loss.auxiliary=lead-guided")]
    result = cloverleaf("train", *options, check=False)
    said = " ".join(result.stderr.split())
    assert result.returncode == 2 and "model.head.auxiliary=true" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists(), "a refused run has used up its folder"
