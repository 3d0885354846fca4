"""Where a model runs."""

from __future__ import annotations

import torch

from cloverleaf.errors import ConfigError

_KNOWN = "use auto, cpu, cuda, cuda:N or mps"


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for ``auto`` (CUDA where there is one, else the CPU) or a torch device name.

    Raises:
        ConfigError: no such device here.
    """
    if isinstance(device, torch.device):
        return device
    name = device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.isdecimal():
        name = f"cuda:{name}"
    try:
        resolved = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device {device!r}", str(error).splitlines()[0], _KNOWN) from error
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"no device {device!r}", f"Cloverleaf does not run on {resolved.type}", _KNOWN)
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not here", f"{torch.cuda.device_count()} CUDA device(s) are visible", "use cpu"
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device {device!r} is not here", "PyTorch sees no Metal device", "use cpu")
    return resolved


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that clocks tell the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
