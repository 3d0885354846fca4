"""Who runs where."""

from __future__ import annotations

import pytest

from cloverleaf.errors import ConfigError
from cloverleaf.training.config import RuntimeConfig
from cloverleaf.training.runtime import resolve_runtime, world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, (0, 1, 1)),
        (TORCHRUN, (3, 4, 2)),
        (SRUN, (5, 8, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (0, 1, 1)),  # sbatch without srun
        ({**SRUN, **TORCHRUN}, (3, 4, 2)),  # torchrun started by srun
    ],
)
def test_world(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], expected: tuple[int, int, int]) -> None:
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert world() == expected


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="float16"):
        resolve_runtime(RuntimeConfig(device="cpu", precision="fp16"))
