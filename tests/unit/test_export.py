"""Export: what is written, what it says about itself, and that nothing wrong is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import cloverleaf
from cloverleaf.cli.export import export as command
from cloverleaf.deploy import export as exporting
from cloverleaf.deploy.export import ExportResult, export
from cloverleaf.deploy.metadata import ExportMetadata, from_json, to_json
from cloverleaf.deploy.onnx_file import OnnxFile, open_session, session_threads
from cloverleaf.deploy.onnx_graph import DecodedDetector
from cloverleaf.deploy.suppression import Suppression, with_suppression
from cloverleaf.deploy.verify import TOLERANCE, compare_dense, compare_detections, sample_images
from cloverleaf.errors import CheckpointError, ConfigError, ExportError
from cloverleaf.models.catalog import create_model
from cloverleaf.ops.nms import batched_nms
from cloverleaf.weights.format import load
from narrow_weights import traced_once, write_narrow_weights

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NAMES = ("apple", "pear", "plum")


@pytest.fixture(scope="module", autouse=True)
def trace_once() -> Iterator[None]:
    with traced_once():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_weights(tmp_path_factory.mktemp("weights") / "narrow.safetensors", NAMES)


@pytest.fixture(scope="module")
def pair(weights: Path) -> ExportResult:
    """A file for two images at a time, suppression inside."""
    return export(weights, batch_size=2, nms=True, confidence=0.3, max_detections=40)


def test_what_the_file_says_about_itself(weights: Path, pair: ExportResult) -> None:
    assert pair.path == weights.with_suffix(".onnx")
    proto = onnx.load(pair.path)
    onnx.checker.check_model(proto, full_check=True)
    assert [item.key for item in proto.metadata_props] == ["cloverleaf"] and proto.producer_name == "cloverleaf"
    assert str(Path.cwd()).encode() not in pair.path.read_bytes(), "it tells where it was made"
    facts = OnnxFile(pair.path).metadata
    assert facts == pair.metadata == ExportMetadata(
        model="yolov7-tiny", num_classes=3, class_names=NAMES, category_ids=(5, 6, 9), image_size=96, batch_size=2,
        dynamic=False, stride=32, suppression=Suppression(confidence=0.3, iou=0.45, max_detections=40),
        provenance="painted, CC0", parent="narrow.safetensors",
    )  # fmt: skip
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
              for value in (*proto.graph.input, *proto.graph.output)}  # fmt: skip
    assert shapes == {"images": [2, 3, 96, 96], "boxes": [2, 40, 4], "scores": [2, 40], "labels": [2, 40], "count": [2]}


def test_suppression_inside_is_that_of_the_library_for_every_image(weights: Path, pair: ExportResult) -> None:
    assert 0 < pair.parity.boxes < TOLERANCE and 0 < pair.parity.scores < TOLERANCE
    assert pair.parity.shapes == ((2, 3, 96, 96),) and (pair.parity.detections or 0) >= 20
    images = torch.cat((sample_images(1, (96, 96), seed=7), torch.zeros(1, 3, 96, 96)))
    with torch.inference_mode():
        boxes, scores = DecodedDetector(load(weights))(images)
    found = OnnxFile(pair.path).run(images.numpy())
    expected = batched_nms(boxes, scores, confidence=0.3, iou=0.45, max_detections=40)
    assert found[3].tolist() == [len(kept) for _, kept, _ in expected]
    for image, (some_boxes, some_scores, some_labels) in enumerate(expected):
        n = len(some_labels)
        np.testing.assert_allclose(found[0][image, :n], some_boxes, atol=1e-2)
        np.testing.assert_allclose(found[1][image, :n], some_scores, atol=1e-5)
        np.testing.assert_array_equal(found[2][image, :n], some_labels)


def disturb(trace: Callable[..., Any]) -> Callable[..., Any]:
    """The exporter with one bias of the last convolution a little off."""

    def disturbed(*arguments: Any, **options: Any) -> Any:
        proto = trace(*arguments, **options)
        tensor = next(item for item in reversed(proto.graph.initializer) if item.name.endswith("project.bias"))
        value = onnx.numpy_helper.to_array(tensor).copy()
        value[4] += 0.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        return proto

    return disturbed


def test_a_file_that_computes_something_else_is_not_left_behind(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "trace", disturb(exporting.trace))
    output = tmp_path / "wrong.onnx"
    output.write_bytes(b"what was there before")
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        export(weights, output)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.onnx"]
    assert output.read_bytes() == b"what was there before"
    result = run(weights, "--output", tmp_path / "other.onnx")
    assert result.exit_code == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_suppression_that_is_wrong_is_refused(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loose(dense: Any, suppression: Suppression, num_classes: int) -> Any:
        return with_suppression(dense, Suppression(confidence=suppression.confidence, iou=0.6), num_classes)

    monkeypatch.setattr(exporting, "with_suppression", loose)
    with pytest.raises(ExportError, match="overlap by"):
        export(weights, tmp_path / "wrong.onnx", batch_size=2, nms=True, confidence=0.01)
    assert not list(tmp_path.iterdir())


def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centre, half = torch.rand(2, 60, 2, generator=generator) * 100, 5 + 10 * torch.rand(2, 60, 2, generator=generator)
    return torch.cat((centre - half, centre + half), 2), torch.rand(2, 60, 3, generator=generator)


def detections(boxes: torch.Tensor, scores: torch.Tensor, settings: Suppression) -> list[np.ndarray]:
    """In the form of a file's outputs."""
    d = settings.max_detections
    out = [np.zeros((2, d, 4), np.float32), np.zeros((2, d), np.float32), np.full((2, d), -1), np.zeros(2, np.int64)]
    kept = batched_nms(boxes, scores, confidence=settings.confidence, iou=settings.iou, max_detections=d)
    for image, values in enumerate(kept):
        out[3][image] = len(values[1])
        for array, value in zip(out, values):
            array[image, : len(value)] = value
    return out


def test_what_the_comparison_of_detections_notices() -> None:
    boxes, scores = predictions()
    settings = Suppression(confidence=0.5, iou=0.3, max_detections=40)
    found = detections(boxes, scores, settings)
    parity = compare_detections((boxes, scores), found, settings, 100)
    assert parity.detections == found[3].sum() > 40 and parity.boxes == parity.scores == 0
    full = Suppression(confidence=0.5, iou=0.3, max_detections=5)
    assert compare_detections((boxes, scores), detections(boxes, scores, full), full, 100).detections == 10
    thin = torch.cat((boxes, boxes[:, :1, [0, 1, 0, 3]]), 1), torch.cat((scores, torch.ones(2, 1, 3)), 1)
    assert compare_detections(thin, found, settings, 100) == parity  # which the file drops, as `batched_nms` does

    def wrong(change: Callable[[list[np.ndarray]], None], says: str) -> None:
        other = [array.copy() for array in found]
        change(other)
        with pytest.raises(ExportError, match=says):
            compare_detections((boxes, scores), other, settings, 100)

    def swap_images(out: list[np.ndarray]) -> None:
        for array in out:
            array[:] = array[::-1].copy()

    def drop_last(out: list[np.ndarray]) -> None:
        n = out[3][0] = out[3][0] - 1
        out[0][0, n], out[1][0, n], out[2][0, n] = 0, 0, -1

    def drop_all(out: list[np.ndarray]) -> None:
        out[0][0], out[1][0], out[2][0], out[3][0] = 0, 0, -1, 0

    def repeat(out: list[np.ndarray]) -> None:
        for array in out[:3]:
            array[0, 1] = array[0, 0]

    def other_class(out: list[np.ndarray]) -> None:
        out[2][0, 0] = (out[2][0, 0] + 1) % 3

    def another_score(out: list[np.ndarray]) -> None:
        out[1][0, 0] += 0.001

    def reverse(out: list[np.ndarray]) -> None:
        for array in out[:3]:
            array[0, : out[3][0]] = array[0, : out[3][0]][::-1].copy()

    def move(out: list[np.ndarray]) -> None:
        out[0][1, 3, 2] += 0.5

    for change, says in (
        (swap_images, "does not compute"),
        (drop_last, "predictions that nothing"),
        (drop_all, "are missing"),
        (repeat, "one prediction"),
        (other_class, "image 0|differ"),
        (another_score, "scores by 1.00e-03"),
        (reverse, "not in order"),
        (move, "boxes differ"),
    ):
        wrong(change, says)


def test_what_the_comparison_of_all_predictions_notices() -> None:
    boxes, scores = predictions()
    assert compare_dense((boxes, scores), [boxes.numpy(), scores.numpy()], 100).boxes == 0
    far, nan = boxes.clone(), scores.clone()
    far[1, 5, 0] += 0.05
    nan[0, 0, 0] = float("nan")
    for other in ((far, scores), (boxes, nan), (boxes[:, 1:], scores), (boxes[:1], scores[:1])):
        with pytest.raises(ExportError):
            compare_dense((boxes, scores), [value.numpy() for value in other], 100)


def test_settings_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    for settings, says in (
        ({"image_size": 100}, "Use 96 or 128"),
        ({"image_size": 20}, "Use 32 or 64"),
        ({"format": "tflite"}, "no format"),
        ({"confidence": 0.3}, "would do nothing"),
        ({"nms": True, "iou": 0.0}, "iou"),
        ({"dynamic": True, "batch_size": 2}, "batch size"),
        ({"output": tmp_path / "a.txt"}, "must end in .onnx"),
    ):
        with pytest.raises(ConfigError, match=says):
            export(weights, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="exported already"):
        export(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="Give output"):
        export(create_model("yolov7-tiny"))
    with pytest.raises(CheckpointError, match="no such file"):
        export(tmp_path / "absent.safetensors")
    assert not list(tmp_path.iterdir()) and cloverleaf.export is export


def test_files_that_were_not_exported_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").write_bytes(b"")
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) { y = Abs(x) }'
    )
    onnx.save(graph, tmp_path / "foreign.onnx")
    graph.metadata_props.add(key="cloverleaf", value=to_json(FACTS))
    onnx.save(graph, tmp_path / "false.onnx")
    for name, says in (("absent", "no such file"), ("text", "cannot be opened"), ("empty", "cannot be opened"),
                       ("foreign", "not exported by cloverleaf"), ("false", "does not fit its own")):  # fmt: skip
        with pytest.raises(CheckpointError, match=says):
            OnnxFile(tmp_path / f"{name}.onnx")


FACTS = ExportMetadata(model="m", num_classes=2, image_size=64, batch_size=1, dynamic=False, stride=32)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('{"model"', '"model"', "damaged"),
        ('"schema_version": 1', '"schema_version": 7', "schema version 7"),
        ('"stride"', '"stripe"', "unknown metadata stripe"),
        ('"stride": 32', '"stride": "x"', "stride"),
        ('"image_size": 64', '"image_size": 65', "image size 65"),
        ('"class_names": []', '"class_names": ["a"]', "1 class names for 2"),
        ('"batch_size": 1', '"batch_size": null', "batch size None"),
        ('"suppression": null', '"suppression": {"iou": 7}', "iou"),
    ],
)
def test_damaged_metadata_is_named(old: str, new: str, says: str) -> None:
    text = to_json(FACTS)
    assert from_json("f", text) == FACTS and old in text
    with pytest.raises(CheckpointError, match=says):
        from_json("f", text.replace(old, new))


@pytest.mark.parametrize("head", ["mask-rcnn", "cascade-mask-rcnn", "point-rend", "uper-net"])
def test_only_detectors_are_exported(head: str, tmp_path: Path) -> None:
    model = create_model(f"csp-tiny+fpn+{head}", backbone={"width": 0.125}, neck={"width": 16})
    with pytest.raises(ConfigError, match=r"it is a model for --task (instance|semantic)"):
        export(model, tmp_path / "model.onnx")


def test_devices_and_threads(pair: ExportResult, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot run on abacus"):
        open_session(pair.path, "abacus")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert session_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert session_threads() >= 1


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_command(weights: Path, tmp_path: Path) -> None:
    result = run("-w", weights, "--output", tmp_path / "new" / "a.onnx", "--image-size", 96)
    assert result.exit_code == 0, result.output + str(result.exception)
    assert "3 classes, input 1 x 96x96" in result.output and "differ by at most" in result.output
    assert OnnxFile(tmp_path / "new" / "a.onnx").metadata.suppression is None
    for arguments, says in (
        ((), "none or two"),
        ((weights, "-w", weights), "none or two"),
        ((weights, "--conf", 0.5, "--max-detections", 3), "--conf and --max-detections would do nothing"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, ConfigError) and says in str(result.exception)
