"""Two processes on one machine learn what one process learns with the same global batch."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import cloverleaf as cl
from smoke.conftest import QUICK, cloverleaf


def test_two_processes_equal_one(shapes: Path, tmp_path: Path) -> None:
    # 32 images, batch 8: five epochs are 20 iterations. The plain assigner, because SimOTA's choices jump. The losses
    # of this small, freshly made network differ by 1 to 2 % between one and two threads of a single process.
    options = [
        "train", "--model", "yolov7-tiny", "--data", str(shapes), "--epochs", "5", "--image-size", "96",
        "--batch-size", "8", "--recipe", "small", "--set", "optimizer.name=sgd", "--set", "optimizer.lr=0.0001",
        "--set", "loss.assigner=anchor_ratio", "--set", "evaluation.interval=5", "--set", "ema.enabled=false", *QUICK,
    ]  # fmt: skip
    options += ["--set", "swa.enabled=true", "--set", "swa.start=0.8", "--set", "swa.images=8"]  # the last epoch only
    cloverleaf(*options, "--output", tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "cloverleaf"]
    result = subprocess.run(
        [sys.executable, *launch, *options, "--output", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=0.03)
    first, second = (load_file(tmp_path / name / "weights" / "last.safetensors") for name in ("one", "two"))
    assert list(first) == list(second)
    for folder, last in (("one", first), ("two", second)):  # written once, of the weights that all processes have
        swa = load_file(tmp_path / folder / "weights" / "swa.safetensors")
        assert all(torch.equal(swa[name], last[name]) for name in last if ".norm." not in name)
    start = untrained()
    assert set(start) == set(first)
    # The prediction layers see no chaos behind them; a process that learned alone would move them quite differently.
    names = [name for name in start if name.endswith("project.weight")]
    one_moved, two_moved = (torch.cat([(end[k] - start[k]).flatten() for k in names]) for end in (first, second))
    assert one_moved.norm() > 1e-3
    assert (one_moved - two_moved).norm() < 0.1 * one_moved.norm()


def untrained() -> dict[str, torch.Tensor]:
    """The weights that both runs started from."""
    torch.manual_seed(0)
    quarter = {"width": 0.25}
    return cl.create_model("yolov7-tiny", num_classes=16, backbone=quarter, neck=quarter, head=quarter).state_dict()


def losses(folder: Path) -> np.ndarray:
    """(epochs, 3) mean losses."""
    with (folder / "results.csv").open() as file:
        return np.array(
            [[float(row[f"train/{item}"]) for item in ("box", "obj", "cls")] for row in csv.DictReader(file)]
        )
