"""`cloverleaf pretrain` from end to end: its document, a kill and a resume, two processes."""

from __future__ import annotations

import csv
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny_datasets
from cloverleaf.cli.main import app
from cloverleaf.pretraining.api import pretrain

TEXT = (Path(__file__).parents[2] / "docs" / "pretrain.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S) for line in block.splitlines()]
NARROW = ["--set", "backbone.width=0.125", "--set", "runtime.threads=1"]
SMALL = ["--epochs", "1", "--image-size", "64", "--batch-size", "2", "--workers", "0", "--precision", "fp32"]
DETECTOR = [part for name in ("backbone", "neck") for part in ("--set", f"model.{name}.width=0.125")]
OPTIONS = [
    "pretrain", "--backbone", "efficient-rep", "--image-size", "64", "--batch-size", "4", "--recipe", "small",
    "--workers", "0", "--precision", "fp32", "--deterministic", "--set", "decoder.width=32", *NARROW,
]  # fmt: skip


@pytest.fixture(autouse=True)
def same_settings_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("work") / "photos", 8)


def write_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")
    return folder


def losses(run: Path) -> list[float]:
    if not (run / "results.csv").exists():
        return []
    with (run / "results.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_every_command_of_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_datasets.write_yolo(tmp_path)
    write_photos(tmp_path / "photos", 4)
    said = []
    for command in COMMANDS:
        words = shlex.split(command)
        if words[0] == "torchrun" or "runs/plain" in words:
            continue  # below, and an ordinary training
        added: list[str] = []
        if "--resume" not in words:
            added = [*SMALL, *(DETECTOR if words[1] == "train" else [] if "--config" in words else NARROW)]
            added += ["--image-size", "128"] * (words[1] == "train")
        result = CliRunner().invoke(app, words[1:] + added, catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        said.append(result.output)
    assert len(said) == 6
    taken = [
        re.search(r"\): (\d+) of (\d+) tensors taken over$", text, re.M) for text in said if "backbone from" in text
    ]
    assert len(taken) == 2 and all(found is not None and found[1] == found[2] for found in taken)
    assert "is complete; its report is" in said[2]
    assert "1 training and 1 validation images" in said[-1]  # a tenth of three


def test_killed_and_resumed_equals_unbroken(photos: Path, tmp_path: Path) -> None:
    """Six epochs at once; and kill -9 after the third, a damaged checkpoint, resume: the same weights bit for bit."""
    options = [*OPTIONS, "--images", str(photos), "--epochs", "6"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert CliRunner().invoke(app, [*options, "--output", str(whole)], catch_exceptions=False).exit_code == 0
    command = [sys.executable, "-m", "cloverleaf", *options, "--output", str(broken)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(losses(broken)) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(losses(broken)) in (3, 4, 5), "the run was not killed in time"
    last = broken / "checkpoint" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert pretrain(output=broken, resume=True).run_dir == broken
    assert losses(broken) == losses(whole)
    one, two = (load_file(run / "weights" / "backbone.safetensors") for run in (whole, broken))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.slow
def test_two_processes_equal_one(photos: Path, tmp_path: Path) -> None:
    """Norms see the visible positions of both, so losses, statistics and weights are those of one process."""
    options = [*OPTIONS, "--images", str(photos), "--epochs", "2", "--set", "optimizer.lr=0.001"]
    assert CliRunner().invoke(app, [*options, "--output", str(tmp_path / "one")], catch_exceptions=False).exit_code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "cloverleaf"]
    result = subprocess.run(
        [sys.executable, *launch, *options, "--output", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    one, two = (load_file(tmp_path / name / "weights" / "backbone.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-2, atol=2e-3, msg=lambda text, key=key: f"{key}: {text}")
