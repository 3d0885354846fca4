"""Models for several tasks: prediction, judging, exported files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import documented
from cloverleaf.cli.main import app
from cloverleaf.data.config import DataConfig
from cloverleaf.data.procedural.make import make_shapes
from cloverleaf.data.source import open_index
from cloverleaf.deploy.export import export
from cloverleaf.errors import ConfigError, DataError, ExportError
from cloverleaf.evaluation.multi import MultiMetrics
from cloverleaf.models.catalog import create_model
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.predict.engine import TorchEngine
from cloverleaf.predict.evaluate import EvaluationResult, evaluate, evaluate_model
from cloverleaf.predict.evaluation_files import write_evaluation
from cloverleaf.predict.predictor import Predictor
from cloverleaf.reports.report import write_report
from cloverleaf.weights.format import save
from golden.fill import fill
from multi_finder import MultiFinder
from square_finder import SquareFinder

COLOURS = {0: (255, 255, 120), 1: (255, 120, 255), 2: (120, 255, 255)}  # by the individual; light enough to be found
TAGS = ("dark", "red")


def picture(who: int, box: tuple[int, int, int, int], size_hw: tuple[int, int], ground: int = 20) -> np.ndarray:
    image = np.full((*size_hw, 3), ground, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = COLOURS[who]
    return image


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of three individuals, the third in one image only, of which none is in `MultiFinder`'s training but
    the first; an image is dark where the ground is, and the tag `red` is on the wrong ones."""
    root = tmp_path_factory.mktemp("several")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, who in enumerate((0, 1, 0, 1, 0, 2)):
        height, width = (200, 320) if number % 2 else (320, 240)
        x, y, w, h = (int(v) for v in (*rng.integers(20, 90, 2), *rng.integers(70, 110, 2)))
        pixels = picture(who, (x, y, x + w, y + h), (height, width), ground=(10, 90)[number % 2])
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        tags = [1] * (number % 2 == 0) + [2] * (who == 2)
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height, "tags": tags})
        annotations.append({
            "id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
            "identity": who,
        })  # fmt: skip
    content = {
        "images": images, "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "ghost"}],
        "tags": [{"id": k + 1, "name": name} for k, name in enumerate(TAGS)],
    }  # fmt: skip
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    for name in ("tags", "identity"):
        other = json.loads(json.dumps(content))
        for entry in (*other["images"], *other["annotations"], other):
            entry.pop(name, None)
        (root / "annotations" / f"without-{name}.json").write_text(json.dumps(other))
    return root


def judge(model: Any, data: Path, **options: Any) -> EvaluationResult:
    return evaluate(TorchEngine(model, torch.device("cpu")), data, workers=0, **options)


def test_judged_in_one_pass(dataset: Path, tmp_path: Path) -> None:
    model = MultiFinder(identities=(0, 7))
    result = judge(model, dataset, batch_size=4)
    metrics = result.metrics
    assert isinstance(metrics, MultiMetrics) and metrics.tags is not None and metrics.retrieval is not None
    assert len(model.seen) == 2, "each image goes through the network once"
    assert metrics["AP50"] == pytest.approx(1) and metrics.boxes["AP"] > 0.7
    assert metrics.tags.names == TAGS and metrics.tags.ap[0] == 1 and metrics.tags.ap[1] < 0.5
    assert metrics["R1"] == metrics["retrieval_mAP"] == 1 and metrics.retrieval.without_match == 1
    assert metrics.retrieval.seen is not None and metrics.retrieval.seen.queries == 3
    assert metrics.retrieval.unseen is not None and metrics.retrieval.unseen.queries == 2
    assert metrics.fitness == pytest.approx((metrics.boxes.fitness + metrics["tag_mAP"] + 1) / 3)
    assert replace(metrics, counted=("tags",)).fitness == metrics["tag_mAP"]
    content = result.to_json()
    assert content["protocol"]["tag_threshold"] == 0.5 and content["retrieval"]["all"]["R1"] == 1
    write_evaluation(result, tmp_path / "pictures")
    (tmp_path / "pictures" / "metrics.json").rename(tmp_path / "metrics.json")
    for name in ("tags", "retrieval", "retrieved", "confusion"):
        assert cv2.imread(str(tmp_path / "pictures" / f"{name}.png")).std() > 5
    sheet = cv2.imread(str(tmp_path / "pictures" / "retrieved.png"))[:, :, ::-1].reshape(-1, 3)
    right, wrong = ((sheet == colour).all(1).sum() for colour in ((0, 128, 92), (196, 48, 43)))
    assert right > 0 and wrong > 0
    html = write_report(tmp_path).read_text()
    for text in ("Each tag", "Tag mAP", "Recall at 1", "Finding an individual again", "Queries and what was found"):
        assert text in html


@pytest.mark.parametrize(
    ("given", "columns"), [("tags", ("tag_mAP", "tag_F1")), ("embeddings", ("R1", "retrieval_mAP"))]
)
def test_a_model_gives_its_own_columns_only(dataset: Path, given: str, columns: tuple[str, ...]) -> None:
    other = {"tags": "embeddings", "embeddings": "tags"}[given]
    model = MultiFinder(**{other: False})  # type: ignore[arg-type]
    metrics = judge(model, dataset).metrics
    content = metrics.to_json()
    assert set(content) & {"tag_mAP", "tag_F1", "R1", "retrieval_mAP"} == set(columns)
    assert all(metrics.to_dict()[name] is not None for name in columns) and len(metrics.to_dict()) > len(columns)
    found = Predictor(model)(picture(0, (60, 60, 150, 150), (200, 320)))
    assert (found.tags is None) == (given != "tags") and (found.embeddings is None) == (given != "embeddings")


def test_what_the_dataset_does_not_have_is_not_judged(dataset: Path) -> None:
    files = {name: dataset / "annotations" / f"without-{name}.json" for name in ("tags", "identity")}
    without = {name: judge(MultiFinder(), file, split="train").metrics for name, file in files.items()}
    assert without["tags"].tags is None and without["tags"].retrieval is not None
    assert without["identity"].tags is not None and without["identity"].retrieval is None
    assert np.isnan(without["identity"]["R1"])
    with pytest.raises(DataError, match="do not know every tag") as caught:
        judge(MultiFinder(tag_names=("blue", "dark")), dataset)
    assert "red" in str(caught.value)


def test_in_training_the_tags_are_in_the_order_of_the_dataset(dataset: Path) -> None:
    model = MultiFinder()
    model.metadata = None
    index = open_index(dataset, "val")
    settings = DataConfig(image_size=320, batch_size=6, workers=0)
    metrics = evaluate_model(model, index, data=settings, device="cpu").metrics
    assert isinstance(metrics, MultiMetrics) and metrics.tags is not None and metrics.retrieval is not None
    named = judge(MultiFinder(tag_names=TAGS), dataset).metrics
    assert metrics.tags.ap.tolist() == named.tags.ap.tolist() and metrics.retrieval.seen is None


def test_predictions_carry_tags_and_embeddings() -> None:
    predictor = Predictor(MultiFinder(), confidence=0.1)
    pictures = [picture(k, (50, 40, 140, 130), (200, 320)) for k in (0, 2, 0)] + [np.zeros((100, 100, 3), np.uint8)]
    first, second, third, empty = predictor(pictures)
    assert [name for name, _ in first.tagged()] == ["red", "dark"] and first.tagged(0.9) == first.tagged()[:1]
    assert second.tag_names == ("red", "dark") and [name for name, _ in second.tagged()] == ["dark"]
    assert first.embeddings.shape == (2, 3) and empty.embeddings.shape == (0, 3) and len(empty.tags) == 2
    np.testing.assert_allclose(np.linalg.norm(first.embeddings, axis=1), 1, atol=1e-6)
    assert first.embeddings[0] @ third.embeddings[0] > 0.999 > 0.5 > first.embeddings[0] @ second.embeddings[0]
    assert first[1:].embeddings.shape == (1, 3) and first[1:].tags is first.tags
    again = predictor.embed(pictures, [found.xyxy for found in (first, second, third, empty)])
    for rows, found in zip(again, (first, second, third, empty), strict=True):
        np.testing.assert_allclose(rows, found.embeddings, atol=1e-5)


def _narrow(num_classes: int = 2, **head: Any) -> Any:
    parts = {"backbone": {"width": 0.25}, "neck": {"width": 0.25}}
    options = {"num_tags": 4, "embedding_dim": 8, "boxes": {"type": "anchor", "width": 0.25}, **head}
    model = create_model("elan-tiny+elan-pan+multi", num_classes=num_classes, head=options, **parts)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and "anchor" not in key:
                value.copy_(torch.from_numpy(fill(key, value.shape, 1.5)))
    return model.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = WeightsMetadata(
        class_names=("square", "ghost"), tag_names=(*TAGS, "x", "y"), image_size=96, identities=(0, 4), task="multi"
    )
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    save(_narrow(), path, metadata=facts)
    return path


@pytest.mark.parametrize("form", [pytest.param("open", marks=pytest.mark.slow), "suppressing"])
def test_exported_files_say_what_the_weights_say(weights: Path, dataset: Path, form: str) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    inside = {"nms": True, "confidence": 0.05} if form == "suppressing" else {"dynamic": True}
    result = export(weights, weights.with_name(f"{form}.onnx"), **inside)
    assert result.parity.embeddings is not None and 0 < result.parity.embeddings < 1e-4
    own, exported = Predictor(weights, confidence=0.05), Predictor(result.path, confidence=0.05)
    assert [*exported.engine.file.shapes][1:] == [
        "boxes", "scores", *(["labels", "count"] if inside.get("nms") else []), "tags",
        "embeddings_8", "embeddings_16", "embeddings_32",
    ]  # fmt: skip
    image = cv2.resize(np.random.default_rng(3).integers(0, 256, (12, 12, 3), np.uint8), (96, 96))
    expected, found = own(image), exported(image)
    assert len(found) == len(expected) > 3 and found.tag_names == (*TAGS, "x", "y")
    np.testing.assert_allclose(found.tags, expected.tags, atol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.01)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-4)
    if form == "open":
        values = [evaluate(path, dataset, workers=0).metrics for path in (weights, result.path)]
        assert values[0].retrieval.seen.queries == 3 and values[1]["R5"] == pytest.approx(values[0]["R5"], abs=0.21)
        assert values[1]["tag_mAP"] == pytest.approx(values[0]["tag_mAP"], abs=1e-3)


def test_a_file_with_other_embeddings_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from cloverleaf.deploy import verify

    with pytest.raises(ExportError, match="does not compute"):
        verify.compare_further([torch.ones(1, 8, 2, 2)], [np.full((1, 8, 2, 2), 1.001, np.float32)])
    with pytest.raises(ExportError, match="another shape"):
        verify.compare_further([torch.ones(1, 4)], [np.ones((1, 3), np.float32)])


def test_command_writes_tags_and_embeddings(weights: Path, dataset: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    words = ["predict", "-w", str(weights), str(dataset / "images"), "--conf", "0.05", "--output", str(tmp_path)]
    done = run(app, [*words, "--save-json", "--save-embeddings"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.count("; tags: ") == 6
    content = json.loads((tmp_path / "predictions.json").read_text())
    rows = np.load(tmp_path / "embeddings.npz")["embeddings"]
    assert rows.shape == (len(content["detections"]), 8) and len(rows) > 6
    predictor = Predictor(weights, confidence=0.05)
    for image in content["images"]:
        found = predictor(image["file_name"])
        mine = [k for k, row in enumerate(content["detections"]) if row["image_id"] == image["id"]]
        np.testing.assert_allclose(rows[mine], found.embeddings, atol=1e-5)
        assert image["tags"] == pytest.approx(dict(zip(found.tag_names, found.tags.tolist(), strict=True)), abs=1e-5)
        size_hw = cv2.imread(image["file_name"]).shape[:2]
        drawn = cv2.imread(str(tmp_path / Path(image["file_name"]).name))
        assert drawn.shape[1] == size_hw[1] and drawn.shape[0] > size_hw[0]
    video = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 5, (96, 96))
    for k in range(3):
        writer.write(np.random.default_rng(k).integers(0, 256, (96, 96, 3), np.uint8))
    writer.release()
    target = tmp_path / "video"
    words = ["predict", "-w", str(weights), str(video), "--conf", "0.05", "--output", str(target)]
    assert run(app, [*words, "--save-json", "--save-embeddings"], catch_exceptions=False).exit_code == 0
    frames = json.loads((target / "clip.json").read_text())["frames"]
    assert len(np.load(target / "clip.npz")["embeddings"]) == sum(len(frame["detections"]) for frame in frames)
    assert set(frames[0]["tags"]) == {*TAGS, "x", "y"}


def test_refusals(weights: Path, dataset: Path, tmp_path: Path) -> None:
    several, boxes = Predictor(MultiFinder()), Predictor(SquareFinder())
    image = picture(0, (60, 60, 150, 150), (200, 320))
    for call, text in (
        (lambda: several.segment([image]), "label maps"),
        (lambda: several.classify([image]), "classes of images"),
        (lambda: boxes.embed([image], [[[0, 0, 5, 5]]]), "gives no embeddings"),
        (lambda: several.embed([image], []), "do not fit the images"),
        (lambda: several.embed([image], [[0, 0, 5, 5]]), "do not fit the images"),
        (lambda: Predictor(MultiFinder(), classes=["red"]), "no class 'red'"),
    ):
        with pytest.raises(ConfigError, match=text):
            call()
    words = ["predict", "-w", str(weights), str(dataset / "images"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--save-embeddings"])
    assert isinstance(result.exception, ConfigError) and "--save-json" in result.exception.fix
    assert not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, ["val", "-w", str(weights), "-d", str(dataset), "--boxes-as-masks"])
    assert isinstance(result.exception, ConfigError)


def test_val_prints_every_task(weights: Path, dataset: Path, tmp_path: Path) -> None:
    data = str(dataset / "annotations" / "without-tags.json")
    words = ["val", "-w", str(weights), "--workers", "0", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, [*words, "-d", str(dataset)], catch_exceptions=False)
    for text in ("tags of 6 images", "never seen", "chance", "retrieval_mAP", "all together"):
        assert text in done.output
    done = CliRunner().invoke(app, [*words, "-d", data, "--split", "train", "--json"], catch_exceptions=False)
    assert "has no tags, so these are not judged" in done.stderr
    assert "tag_mAP" not in json.loads(done.stdout)


@pytest.mark.parametrize("section", ["Judging", "Predicting", pytest.param("Exporting", marks=pytest.mark.slow)])
def test_every_documented_command_runs(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cloverleaf.predict.evaluation_files.draw_evaluation", lambda *_: None)  # drawn above
    make_shapes(Path("shapes"), images=12, size=96)
    index = open_index("shapes", "val")
    facts = WeightsMetadata(class_names=index.names, tag_names=index.tag_names, image_size=96, task="multi")
    model = _narrow(num_classes=len(index.names), num_tags=len(index.tag_names))
    Path("runs/multi/weights").mkdir(parents=True)
    save(model, Path("runs/multi/weights/best.safetensors"), metadata=facts)
    text = documented.text_from("multi-task.md", section).split("\n## ")[0]
    done: list[list[str]] = []
    documented.run_commands(text, lambda words: words, done.append)
    documented.run_snippets(text)
    assert len(done) >= 2
