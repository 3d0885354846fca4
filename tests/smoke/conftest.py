"""A tiny embedded dataset and the options of runs that take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = [
    "--set", "model.backbone.width=0.25", "--set", "model.neck.width=0.25", "--set", "model.head.width=0.25",
    "--workers", "0", "--precision", "fp32", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small scenes: 32 for training, 4 to judge on, 4 to test on."""
    from cloverleaf.data.procedural import make_shapes

    folder = tmp_path_factory.mktemp("embedded") / "shapes"
    make_shapes(folder, seed=3, images=40, size=96, splits={"train": 32, "val": 4, "test": 4}, workers=0)
    return folder


def cloverleaf(*arguments: str | Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "cloverleaf", *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **environment},
    )  # fmt: skip
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result
