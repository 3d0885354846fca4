"""The device and the precision of a prediction and of a run, on machines with and without GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cloverleaf.errors import ConfigError
from cloverleaf.predict.device import resolve_device
from cloverleaf.training.config import RuntimeConfig
from cloverleaf.training.runtime import resolve_runtime


@pytest.fixture
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with so many GPUs, without bfloat16, and a CPU without it."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr("cloverleaf.training.runtime.cpu_has_bf16", lambda: False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    return count


@pytest.mark.parametrize(
    ("gpus", "asked", "device", "devices", "precision"),
    [
        (0, "auto", "cpu", 1, "fp32"),
        (2, "auto", "cuda", 1, "fp16"),
        (2, "cpu", "cpu", 1, "fp32"),
        (2, "cuda:1", "cuda:1", [1], "fp16"),
        (2, "1", "cuda:1", [1], "fp16"),
    ],
    indirect=["gpus"],
)
def test_a_run_and_a_prediction_take_the_same_device(
    gpus: int, asked: str, device: str, devices: Any, precision: str
) -> None:
    runtime = resolve_runtime(RuntimeConfig(device=asked))
    assert (runtime.device, runtime.devices, runtime.nodes, runtime.precision) == (device, devices, 1, precision)
    assert resolve_device(asked) == torch.device(device) and runtime.accelerator == torch.device(device).type


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_processes_started_by_torchrun_share_the_machine(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    runtime = resolve_runtime(RuntimeConfig(device="auto"))
    assert (runtime.device, runtime.devices, runtime.nodes) == ("cuda", 2, 2)


@pytest.mark.parametrize(
    ("gpus", "asked", "says"),
    [
        (0, "cuda", "0 CUDA"), (2, "cuda:2", "2 CUDA"), (0, "mps", "no Metal"), (0, "meta", "does not run on meta"),
        (0, "abacus", "no device 'abacus'"),
    ],
    indirect=["gpus"],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(gpus: int, asked: str, says: str) -> None:
    for resolve in (resolve_device, lambda name: resolve_runtime(RuntimeConfig(device=name))):
        with pytest.raises(ConfigError, match=says):
            resolve(asked)


@pytest.mark.parametrize("gpus", [0], indirect=True)
def test_half_precision_needs_a_gpu(gpus: int) -> None:
    with pytest.raises(ConfigError, match="no fast float16"):
        resolve_runtime(RuntimeConfig(precision="fp16"))
