"""Device, precision and threads of a run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from cloverleaf.data.cpus import usable_cpus
from cloverleaf.errors import ConfigError
from cloverleaf.predict.device import resolve_device
from cloverleaf.training.config import RuntimeConfig

_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the machine gives a run.

    Attributes:
        accelerator: Lightning's name of the device kind.
        devices: processes on this machine, or the list of device indices.
        nodes: machines.
        precision: `fp32`, `bf16` or `fp16`.
        reason: why this precision, for the log.
    """

    accelerator: str
    devices: int | list[int]
    nodes: int
    precision: str
    reason: str

    @property
    def device(self) -> str:
        """Device of what only the first process does, such as judging the finished weights."""
        return f"{self.accelerator}:{self.devices[0]}" if isinstance(self.devices, list) else self.accelerator

    @property
    def lightning_precision(self) -> str:
        """Lightning's name of the precision."""
        return _LIGHTNING_PRECISION[self.precision]


def world() -> tuple[int, int, int]:
    """(rank, world size, processes on this machine) as torchrun or srun says; (0, 1, 1) for a single process.

    An allocation alone (`sbatch` without `srun`) starts one process, whatever SLURM_NTASKS says.
    """
    told = os.environ
    if "RANK" in told and "WORLD_SIZE" in told:
        rank, size = int(told["RANK"]), int(told["WORLD_SIZE"])
        return rank, size, int(told.get("LOCAL_WORLD_SIZE", size))
    if "SLURM_STEP_ID" in told and int(told.get("SLURM_NTASKS", "1")) > 1:
        tasks = told.get("SLURM_STEP_TASKS_PER_NODE", told["SLURM_NTASKS"])  # such as 4(x2)
        return int(told["SLURM_PROCID"]), int(told["SLURM_NTASKS"]), int(re.split(r"[(,]", tasks)[0])
    return 0, 1, 1


def check_shares(batch_size: int, world_size: int) -> None:
    """Raise `ConfigError` where a batch cannot be shared equally by the processes."""
    if batch_size % world_size:
        raise ConfigError(
            f"--batch-size {batch_size} cannot be shared by {world_size} processes",
            "it is the batch over all processes", f"use a multiple of {world_size}",
        )  # fmt: skip


@cache
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX-512 BF16 or AMX)."""
    capability: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx: Any = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool((capability and capability()) or (amx and amx()))


def resolve_runtime(config: RuntimeConfig) -> Runtime:
    """Choose the device and the precision, and set the thread count.

    Raises:
        ConfigError: the device is not there, or the precision does not work on it.
    """
    _, size, local = world()
    device = resolve_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.threads or max(usable_cpus() // local, 1))
    precision, reason = _precision(config.precision, device.type)
    chosen = [device.index] if device.type == "cuda" and device.index is not None else 1
    return Runtime(device.type, local if size > 1 else chosen, size // local, precision, reason)


def _precision(asked: str, kind: str) -> tuple[str, str]:
    if asked == "fp16" and kind != "cuda":
        raise ConfigError("--precision fp16 asked for", f"a {kind} has no fast float16", "use bf16 or fp32")
    if asked != "auto":
        return asked, "as asked"
    if kind == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the GPU has it natively") if good else ("fp16", "the GPU has no native bfloat16")
    if kind == "cpu" and cpu_has_bf16():
        return "bf16", "this CPU multiplies bfloat16 natively"
    return "fp32", "no native bfloat16 here"
