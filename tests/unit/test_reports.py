"""Figures, pictures and the self-contained report, from synthetic inputs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cloverleaf.reports.figures import (
    plot_confidence_curves,
    plot_losses_and_ap,
    plot_pr_curves,
)
from cloverleaf.reports.matrices import plot_confusion
from cloverleaf.reports.pictures import Comparison, draw_predictions_beside_truth, draw_training_batch
from cloverleaf.reports.report import write_report
from cloverleaf.structures.batch import Targets
from cloverleaf.structures.detections import Detections

pytestmark = pytest.mark.filterwarnings("error")  # a missing glyph, an empty mean or a bad layout is a fault
GRID = np.linspace(0, 1, 50)
NAMES = {1: ("cell",), 4: ("a$b$c", "细胞", "<b>bold</b>", "x" * 60), 90: tuple(f"class-{k}" for k in range(90))}


def content_share(path: Path) -> float:
    """Share of pixels that are not white."""
    image = cv2.imread(str(path))
    assert image is not None and min(image.shape[:2]) > 200
    return float((image.min(2) < 200).mean())


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_losses_and_ap_from_numbers_or_csv_text(tmp_path: Path, epochs: int) -> None:
    rows = [
        {"epoch": k + 1, "train/box": 0.1, "train/obj": "0.2", "lr": 0.01, "AP": "" if k else "0.3", "APs": None}
        for k in range(epochs)
    ]
    plot_losses_and_ap(rows, tmp_path / "new" / "results.png")
    assert content_share(tmp_path / "new" / "results.png") > 0.005


@pytest.mark.parametrize("classes", NAMES)
def test_curves_and_confusion_for_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    names = NAMES[classes]
    values = np.linspace(1, 0, 50) * np.linspace(0.2, 1, classes)[:, None]
    values[classes // 2] = np.nan if classes > 1 else values[0]
    plot_pr_curves(GRID, values, names, tmp_path / "pr.png", ap50=values.mean(1))
    plot_confidence_curves(GRID, values, values, values, names, tmp_path / "conf.png", best_confidence=0.3)
    plot_confusion(np.eye(classes + 1, dtype=int) * 5, names, tmp_path / "confusion.png")
    confusion = cv2.imread(str(tmp_path / "confusion.png"))
    assert confusion[:, [0, -1]].min() > 240 and confusion[[0, -1]].min() > 240, "something is cut at the border"
    assert all(content_share(path) > 0.01 for path in tmp_path.glob("*.png"))


def test_curves_without_any_object(tmp_path: Path) -> None:
    values = np.full((2, 50), np.nan)
    plot_pr_curves(GRID, values, ("a", "b"), tmp_path / "pr.png")
    plot_confidence_curves(
        GRID, values, values, values, ("a", "b"), tmp_path / "conf.png", best_confidence=float("nan")
    )
    assert {path.name for path in tmp_path.iterdir()} == {"pr.png", "conf.png"}


def test_training_batch_grid(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (5, 3, 64, 96), dtype=torch.uint8)
    targets = Targets(torch.tensor([[1.0, 1, 30, 30], [5, 5, 60, 60]]), torch.tensor([0, 1]), torch.tensor([0, 4]), 5)
    draw_training_batch(images, targets, ("细胞", "b"), tmp_path / "batch.png", tile=120)
    height, width = cv2.imread(str(tmp_path / "batch.png")).shape[:2]
    assert width == 3 * 128 + 8 and height == 2 * 88 + 8


@pytest.mark.parametrize("count", [0, 1, 3])
def test_predictions_beside_truth(tmp_path: Path, count: int) -> None:
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("a",), (40, 60))
    image = np.zeros((40, 60, 3), np.uint8)
    one = Detections(
        np.array([[1, 1, 20, 20]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), ("a",), (40, 60)
    )
    items = [Comparison(image, one.xyxy, one.labels, (one, empty)[k % 2], "picture.jpg") for k in range(count)]
    draw_predictions_beside_truth(items, ("a",), tmp_path / "predictions.jpg", tile=200)
    assert cv2.imread(str(tmp_path / "predictions.jpg")).shape[1] == {0: 64, 1: 404 + 16, 3: 2 * 412 + 8}[count]


class Page(HTMLParser):
    """Collects tags, links and text, and checks that tags close."""

    VOID = {"meta", "link", "img", "br", "hr"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<script>alert('&')</script>"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    (folder / "pictures").mkdir(parents=True)
    metrics = {
        "AP": 0.41234, "AP50": 0.7, "APs": None, "confidence": 0.31, "split": "val",
        "images": 75, "objects": 1234, "epochs": 12,
        "classes": [{"name": EVIL, "objects": 5, "AP": 0.25, "AP50": None}, {"name": "none", "objects": 0, "AP": None}],
        "confusion": {"classes": ["disc", EVIL, "background"], "counts": [[9, 4, 1], [0, 5, 0], [2, 2, 0]]},
        "speed": {"inference_ms": 12.34, "images": 75},
        "run": {"command": f"cloverleaf train --output '{EVIL}'", "training_seconds": 75.2, "device": "cpu"},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(f'model:\n  name: yolov7-tiny\ndata:\n  source: "{EVIL}"\n')
    (folder / "results.csv").write_text("epoch,AP\n1,0.1\n")
    noise = np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    for name in ("train_batch_1.png", "train_batch_2.png", "training.png", "extra.png"):
        cv2.imwrite(str(folder / "pictures" / name), noise)
    return folder


def test_report_is_complete_and_self_contained(run_dir: Path) -> None:
    path = write_report(run_dir)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert path == run_dir / "report.html"
    assert page.links and all(link.startswith("data:") for link in page.links)
    assert "http:" not in html and "https:" not in html and "@import" not in html and "url(" not in html
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert html.count('class="plot"') == 1 and "Losses and metrics" in page.text
    assert len(html) < 3_000_000, "photographs must be embedded as JPEG"
    text = re.sub(r"\s+", " ", page.text)
    for expected in (
        *("yolov7-tiny", "0.412", "1 min 15 s", "75 images with 1,234 objects", "inference 12.3", "disc for", "0.31"),
        *("--resume", f"'{run_dir}/weights/best.safetensors'", "More pictures"),
    ):
        assert expected in text, expected
    assert EVIL in text, "text must be shown as it is, escaped"
    assert "Left out" not in text
    assert "AP small" not in text, "an undefined number is left out"
    assert [p.name for p in run_dir.glob("report*")] == ["report.html"]


def test_report_of_an_empty_folder_says_only_what_comes_next(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "Training run" in page.text and "predict" in page.text
    assert "img" not in page.tags and "table" not in page.tags and "Left out" not in page.text


def test_report_names_what_it_could_not_read(run_dir: Path) -> None:
    (run_dir / "metrics.json").write_text("{")
    (run_dir / "pictures" / "confusion.png").write_bytes(b"no picture")
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert "Left out" in page.text and "metrics.json" in page.text and "confusion.png is not a picture" in page.text
    assert page.tags.count("img") == 4
