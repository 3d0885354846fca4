"""How many CPUs there are to share."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_processes() -> int:
    """Processes of the same run on this machine, as torchrun says; they share its CPUs and its memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def resolve_threads(workers: int) -> int:
    """Threads of a pool: a negative number means all usable CPUs, and there is at least one."""
    return usable_cpus() if workers < 0 else max(workers, 1)
