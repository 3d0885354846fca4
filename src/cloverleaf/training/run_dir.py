"""The run folder: where it is, and what lies in it."""

from __future__ import annotations

from pathlib import Path

from cloverleaf.errors import ConfigError
from cloverleaf.predict.results import numbered

SUBFOLDERS = ("weights", "checkpoint", "pictures")


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
