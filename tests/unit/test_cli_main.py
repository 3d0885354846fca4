"""What every verb shares: exit codes, messages instead of tracebacks, and options that reach the configuration."""

from __future__ import annotations

import errno
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import cloverleaf
from cloverleaf.cli import main as cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cloverleaf", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_full_disk_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/results.csv")

    monkeypatch.setattr(cli, "app", fail)
    assert run(monkeypatch) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_other_os_errors_are_faults_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(FileNotFoundError):
        cli.main()


def test_an_output_below_a_file_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "below"
    assert run(monkeypatch, "data", "make", "shapes", "--images", "1", "--output", str(output)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: cannot use") and "fix: check the path" in shown


@pytest.mark.parametrize("verb", ["info", "models"])
def test_a_model_that_is_not_there_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    assert run(monkeypatch, verb, "yolov7-tny") == 2


def test_the_version_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"cloverleaf {cloverleaf.__version__}\n"


def test_what_the_library_logs_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of an image cache is logged at level INFO before it is filled."""
    assert logging.lastResort is not None
    monkeypatch.setattr(logging.lastResort, "level", logging.WARNING)
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    assert logging.getLogger("cloverleaf.data.cache").isEnabledFor(logging.INFO)
    assert logging.lastResort.level == logging.INFO
    logging.getLogger("cloverleaf").setLevel(logging.NOTSET)


def test_named_options_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device 0` is a device name and `--weights 2024` a file, not numbers."""
    from cloverleaf.recipes import api

    given: dict[str, Any] = {}
    monkeypatch.setattr(api, "train", lambda *_, **options: given.update(options))
    arguments = ["--device", "0", "--weights", "2024", "--seed", "3", "--set", "runtime.threads=2"]
    assert run(monkeypatch, "train", *arguments) == 0
    assert given["overrides"] == {"seed": 3, "runtime": {"device": "0", "threads": 2}}
    assert str(given["weights"]) == "2024"
