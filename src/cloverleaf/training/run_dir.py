"""The run folder: where it is, and what lies in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloverleaf.errors import ConfigError
from cloverleaf.predict.results import numbered

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUBFOLDERS = ("weights", "checkpoint", "pictures")
_HELD: set[int] = set()  # open folders that this process has locked


def next_free(base: Path) -> Path:
    """``base``, or the first of ``base-2``, ``base-3``, ... that does not exist."""
    return next(path for path in numbered(base) if not path.exists())


def check_output(output: str) -> None:
    """Raise `ConfigError` where no run folder is named."""
    if not output:
        raise ConfigError("no run folder", "--output is not given", "give a folder that does not exist yet")


def require_free(run_dir: Path) -> None:
    """Refuse a run folder that already holds something.

    Raises:
        ConfigError: it does.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ConfigError(
            f"--output {run_dir} is already in use",
            "a run never overwrites what is there",
            "choose another folder, or add --resume to continue the run in it",
        )


def create(run_dir: Path) -> None:
    """Make a new run folder.

    Raises:
        ConfigError: it already holds something, or cannot be written.
    """
    require_free(run_dir)
    try:
        for name in SUBFOLDERS:
            (run_dir / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to --output {run_dir}", str(error), "choose another folder") from None


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run folder that exists; whatever ends this one lets go of it.

    It is a lock on the folder itself, so that no file stays behind. Where the system has none (Windows, some network
    drives) nothing is held.

    Raises:
        ConfigError: another run writes to the folder.
    """
    if fcntl is None or not run_dir.is_dir():
        yield
        return
    folder = os.open(run_dir, os.O_RDONLY)
    _HELD.add(folder)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--output {run_dir} is in use by another process",
                "two runs in one folder would overwrite each other",
                "wait until it ends, or choose another folder",
            ) from None
        except OSError as error:  # no locks on this drive
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):
                raise
        yield
    finally:
        if folder in _HELD:
            _HELD.remove(folder)
            if fcntl is not None:  # a process forked a moment ago may not have closed its copy yet
                with suppress(OSError):  # no locks on this drive
                    fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)


def _leave_to_the_parent() -> None:
    """Loader processes are no owners: a lock must not outlive a killed run by the seconds that they take to notice."""
    while _HELD:
        os.close(_HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
