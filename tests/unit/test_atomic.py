"""Files appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloverleaf import atomic


def test_what_is_written_and_what_a_failure_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "numbers.json"
    atomic.write_json(path, {"name": "Zäh\u2028lung", "value": 1.5})
    assert json.loads(path.read_bytes()) == {"name": "Zäh\u2028lung", "value": 1.5}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, {"value": float("nan")})

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        atomic.write_text(path, "other")
    assert path.read_bytes() == before and [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    left = tmp_path / "weights" / ".last.safetensors.d87c6aae.tmp"
    others = [tmp_path / name for name in (".notes.tmp", ".d87c6aae.tmp", "a.d87c6aae.tmp", ".last.safetensors")]
    for path in [left, *others]:
        path.touch()
    assert atomic.remove_leftovers(tmp_path) == [left]
    assert not left.exists() and all(path.exists() for path in others)
