"""One training run as a process of its own, on its share of the CPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from cloverleaf.ablation.folder import Folder
from cloverleaf.ablation.items import Run
from cloverleaf.errors import ConfigError
from cloverleaf.training.config_io import Config, write_config

_GRACE = 10.0  # seconds that an interrupted run has to end by itself


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several runs at a time may use.

    Attributes:
        cpus: CPUs.
        device: `cuda:N` where there are several GPUs to share out, else None.
    """

    cpus: tuple[int, ...]
    device: str | None = None


def share_out(parallel: int, cpus: list[int], gpus: int = 0) -> list[Share]:
    """Equal shares; the CPUs that are left over go unused.

    Raises:
        ConfigError: there are fewer CPUs than runs.
    """
    if parallel > len(cpus):
        raise ConfigError(
            f"--parallel {parallel} is too much", f"there are {len(cpus)} CPUs to share", f"use at most {len(cpus)}"
        )
    size = len(cpus) // parallel
    return [
        Share(tuple(cpus[k * size : (k + 1) * size]), f"cuda:{k % gpus}" if gpus > 1 else None) for k in range(parallel)
    ]


def usable() -> list[int]:
    """The CPUs that this process may use, as the operating system numbers them where it tells."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class Process:
    """A run that has been started.

    Args:
        folder: of the study.
        run: what to train.
        share: where.
        lock: descriptor of the study's lock, which the process holds as long as it lives.
    """

    def __init__(self, folder: Folder, run: Run, share: Share, lock: int) -> None:
        self.folder, self.run, self.share = folder, run, share
        self.started = time.monotonic()
        self.resumed = folder.state(run.name) == "resumable"
        folder.failure(run.name).unlink(missing_ok=True)
        command = run_command(folder, run, share, resume=self.resumed)
        log = folder.log(run.name)
        self._before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out, _pinned(share):
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                pass_fds=(lock,), env={**os.environ, "COLUMNS": "1000", "NO_COLOR": "1"},
            )  # fmt: skip

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        _signal(self._process, signal.SIGINT)

    def wait(self) -> None:
        """Give an interrupted process a while to end."""
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its loader processes at once; the run can be resumed from its last checkpoint all the same."""
        _signal(self._process, signal.SIGKILL)
        self._process.wait()

    def fail(self, code: int) -> str:
        """Write down and return why it failed."""
        reason = reason_of(code, self.folder.log(self.run.name), self._before)
        self.folder.note_failure(self.run.name, reason)
        return reason

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started


def run_command(folder: Folder, run: Run, share: Share, *, resume: bool) -> list[str]:
    """`cloverleaf train` or `pretrain` from a configuration file, which this writes, or resumed."""
    base = [sys.executable, "-m", "cloverleaf", run.verb]
    output = ["--output", str(folder.run_dir(run.name))]
    config = with_share(folder.with_needs(run.config, run.needs), share)
    if resume:
        runtime = config.runtime
        values = {"threads": runtime.threads, "device": runtime.device}
        extra = [f"--set=runtime.{key}={value}" for key, value in values.items()]
        return [*base, "--resume", *output, *extra, f"--set=data.workers={config.data.workers}"]
    folder.clear(run.name)
    file = folder.config_file(run.name)
    write_config(config, file)
    return [*base, "--config", str(file), *output]


def with_share(config: Config, share: Share) -> Config:
    """``config`` with threads, loader processes and GPU of its share, unless the study sets its own."""
    count = len(share.cpus)
    runtime, data = config.runtime, config.data  # type: ignore[attr-defined]
    device = share.device if share.device and runtime.device in ("auto", "cuda") else runtime.device
    return replace(  # type: ignore[type-var]
        config,
        runtime=replace(runtime, threads=runtime.threads or count, device=device),
        data=replace(data, workers=count if data.workers < 0 else data.workers),
    )


class _pinned:
    """Start processes on the share's CPUs, where the operating system can: they inherit what holds for this thread."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def __enter__(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            self._own = os.sched_getaffinity(0)
            os.sched_setaffinity(0, self.share.cpus)

    def __exit__(self, *_: object) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self._own)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the process and all that it has started; it may have ended in the meantime."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def reason_of(code: int, log: Path, start: int = 0) -> str:
    """Why a run failed: its own error message, else the last thing that it said, else how it ended.

    Args:
        code: exit code; negative for a signal.
        log: what it printed.
        start: first byte of the attempt in the log.
    """
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.rstrip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith("error: "):
            why = [line.strip().removeprefix("why: ") for line in lines[i + 1 : i + 2] if line.startswith("  why: ")]
            return ": ".join([lines[i].removeprefix("error: "), *why])
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"exit code {code}: {lines[-1].strip() if lines else 'it said nothing'}"
