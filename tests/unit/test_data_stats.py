"""Dataset statistics: the numbers, and pictures that are there."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
from typer.testing import CliRunner

from cloverleaf.cli.data import app
from tiny_datasets import write_coco


def test_command_writes_numbers_and_pictures(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    result = CliRunner().invoke(app, ["stats", str(root), "--output", str(tmp_path / "stats")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "stats" / "stats.json").read_text())
    train = content["splits"]["train"]
    assert (train["images"], train["images_without_objects"], train["objects"]) == (2, 1, 2)
    assert train["per_class"] == {"ant": 1, "bee": 0, "cat": 1}
    assert train["per_size"] == {"small": 1, "medium": 1, "large": 0}
    assert train["per_image"]["max"] == 2
    for name in ("stats.png", "images-train.png", "images-val.png"):
        picture = cv2.imread(str(tmp_path / "stats" / name))
        assert picture is not None and picture.std() > 5
