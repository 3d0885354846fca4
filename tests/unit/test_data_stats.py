"""Dataset statistics: the numbers, and pictures that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cloverleaf.cli.data import app
from cloverleaf.data.stats_plots import draw_overview
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


@pytest.mark.filterwarnings("error")  # a missing glyph, an empty mean or a bad layout is a fault
@pytest.mark.parametrize("objects", [0, 1, 500])
def test_overview_of_any_number_of_objects(tmp_path: Path, objects: int) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 200, (objects, 2))
    facts = {
        "names": ("细胞", *(f"class-{k}" for k in range(59))),
        "boxes_xyxy": np.concatenate([low, low + rng.uniform(5, 100, (objects, 2))], axis=1),
        "labels": rng.integers(0, 60, objects),
        "crowd": np.zeros(objects, bool),
        "object_offsets": np.array([0, objects, objects]),
        "sizes_hw": np.array([[300, 300], [300, 300]]),
    }
    split: Any = type("Split", (), {**facts, "__len__": lambda self: 2})()
    draw_overview({"train": split}, split.names, tmp_path / "labels.png")
    picture = cv2.imread(str(tmp_path / "labels.png"))
    assert min(picture.shape[:2]) > 200 and (picture.min(2) < 200).mean() > 0.005
