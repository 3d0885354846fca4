"""Every command and snippet of docs/implicit.md runs; what was trained folds away."""

from __future__ import annotations

from pathlib import Path

import pytest

import cloverleaf
import tiny_datasets
from cloverleaf.layers.implicit import Implicit
from cloverleaf.training import finish
from documented import run_commands, run_snippets

TEXT = (Path(__file__).parents[2] / "docs" / "implicit.md").read_text(encoding="utf-8")
QUICK = ["--image-size", "64", "--batch-size", "2", "--workers", "0", "--precision", "fp32", "--device", "cpu"]


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finish, "draw_run", lambda *args, **options: None)  # pictures take longer than all the rest
    tiny_datasets.write_yolo(tmp_path)

    def narrow(words: list[str]) -> list[str]:
        if words[0] != "train":
            return words
        smaller = {"shapes": "data.yaml", "30": "1", "yolov7-tiny": "csp-tiny+c3-pan+anchor"}
        words = [smaller.get(word, word) for word in words]
        widths = (f"model.{part}.width=0.0625" for part in ("backbone", "neck"))
        return [*words, *QUICK, *(word for width in widths for word in ("--set", width))]

    run_commands(TEXT, narrow, lambda words: None)
    model = cloverleaf.load("runs/implicit/weights/best.safetensors")
    places = {name: module.operator for name, module in model.named_modules() if isinstance(module, Implicit)}
    assert set(places.values()) == {"add", "multiply"} and len(places) == 2 + 3
    assert not any(isinstance(module, Implicit) for module in model.fused().modules())


def test_snippets() -> None:
    run_snippets(TEXT)
