"""The commands of docs/averaging.md, one after another, on a few small scenes and a tenth of the epochs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloverleaf.cli.main import app
from cloverleaf.data.procedural import make_shapes
from cloverleaf.training import finish
from cloverleaf.weights import read_metadata

DOCUMENT = Path(__file__).parents[2] / "docs" / "averaging.md"
SMALL = {
    "train": ["--image-size", "64", "--batch-size", "4", "--workers", "0", "--precision", "fp32", "--device", "cpu",
              "--set", "model.backbone.width=0.125", "--set", "model.neck.width=0.125", "--set", "data.cache=none",
              "--set", "runtime.threads=1"],
    "merge": ["--device", "cpu", "--workers", "0"],
    "val": ["--device", "cpu", "--workers", "0"],
}  # fmt: skip


def documented() -> list[list[str]]:
    """Words of every command, all numbers of epochs divided by ten."""
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    text = re.sub(r"(--epochs |save_every=)(\d+)0\b", r"\1\2", text)
    lines = re.sub(r"epoch-(\d{3})0", r"epoch-0\1", text).splitlines()
    return [shlex.split(line) for line in lines if line]


def test_the_commands_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "draw_run", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("data.yaml", "site-a.yaml", "site-b.yaml")):
        splits = {"train": 6, "val": 2}
        make_shapes(tmp_path / name, seed=seed, images=8, size=64, splits=splits, workers=0)
    for _, verb, *words in documented():
        result = CliRunner().invoke(app, [verb, *words, *SMALL[verb]], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        if verb == "merge":
            assert "recomputed on 6 images" in result.output
    assert (tmp_path / "runs" / "one" / "weights" / "swa.safetensors").exists()
    assert list(read_metadata("averaged.safetensors").parents.values()) == [0.2, 0.3, 0.5]
    assert set(read_metadata("merged.safetensors").parents.values()) == {0.5}
