"""Prediction: coordinates, every kind of input, sources, drawing, videos and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from cloverleaf.cli.predict import predict
from cloverleaf.errors import CheckpointError, ConfigError, DataError, ImageError
from cloverleaf.models.catalog import create_model
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.predict import sources
from cloverleaf.predict.classes import resolve_classes
from cloverleaf.predict.draw import draw_detections
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.results import ResultFolder, new_folder, results_in
from cloverleaf.predict.sources import find_sources
from cloverleaf.structures import Detections
from cloverleaf.weights.format import load, save
from golden.fill import fill
from square_finder import SquareFinder

NAMES = ("apple", "pear", "plum")


def square_image(size_hw: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.full((*size_hw, 3), 40, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = create_model("yolov7-tiny", num_classes=3)
    with torch.no_grad():  # the rule of the golden numbers: outputs spread widely, unlike those of a fresh model
        for name, value in model.state_dict().items():
            if value.is_floating_point() and "anchor" not in name:
                value.copy_(torch.from_numpy(fill(name, value.shape, 1.5)))
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save(model, path, metadata=WeightsMetadata(class_names=NAMES, category_ids=(5, 6, 9), image_size=96))
    return path


@pytest.fixture(scope="module")
def predictor(weights: Path) -> Predictor:
    return Predictor(weights, confidence=0.0, device="cpu")


def same(a: Detections, b: Detections) -> None:
    np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-2)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("size_hw", "box"),
    [
        ((320, 320), (10, 20, 110, 90)),
        ((481, 639), (100, 51, 333, 260)),
        ((97, 251), (3, 5, 200, 80)),
        ((1003, 333), (30, 700, 300, 999)),
        ((31, 47), (10, 5, 30, 25)),
        ((2000, 3001), (1500, 1000, 2900, 1900)),
        ((160, 160), (0, 0, 160, 160)),
    ],
)
def test_boxes_come_back_in_pixels_of_the_original(size_hw: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    predictor = Predictor(SquareFinder())  # type: ignore[arg-type]
    found = predictor(square_image(size_hw, box))
    assert found.image_hw == size_hw and found.names == ["square", "ghost"]  # the box outside the image is gone
    pixel = max(size_hw) / 320  # one input pixel, in original ones
    np.testing.assert_allclose(found.xyxy[0], box, atol=max(1.0, 0.75 * pixel))
    assert max(predictor.engine.model.seen[-1]) == 320  # type: ignore[attr-defined]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_tiny_and_extreme_images(predictor: Predictor, size_hw: tuple[int, int]) -> None:
    found = predictor(np.zeros((*size_hw, 3), np.uint8))
    assert found.image_hw == size_hw
    assert (found.xyxy >= 0).all() and (found.xyxy <= [size_hw[1], size_hw[0]] * 2).all()


def test_list_equals_one_by_one_and_every_form_of_an_image_agrees(predictor: Predictor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((60, 90), (90, 60), (60, 90), (33, 121), (50, 50))]
    together = predictor(images)
    assert len(together) == 5 and all(len(found) > 0 for found in together)
    for image, found in zip(images, together):
        same(predictor(image), found)
        assert (np.diff(found.scores) <= 0).all()
        assert (found.xyxy >= 0).all() and (found.xyxy[:, 2] <= image.shape[1]).all()
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    for form in (path, str(path), Image.open(path), Image.fromarray(images[0]).convert("RGBA"), images[0] / 255.0):
        same(predictor(form), together[0])
    assert predictor(path).source == str(path)
    grey = images[1][..., 0]
    forms = (
        grey,
        grey[..., None],
        Image.fromarray(grey),
        grey.astype(np.uint16) * 257,
        Image.fromarray(grey).convert("LA"),
    )
    for form in forms:
        same(predictor(form), predictor(np.repeat(grey[..., None], 3, 2)))
    assert predictor([]) == []


def test_fused_and_training_form_agree_and_the_model_is_untouched(weights: Path) -> None:
    model = load(weights)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    a, b = (Predictor(model, confidence=0.0, iou=1.0, fuse=fuse)(image) for fuse in (True, False))
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)
    assert a.scores.std() > 0.01
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert a.to_coco()[0]["category_id"] in (5, 6, 9)


@pytest.mark.parametrize("bad", [object(), 3, None, np.zeros((2, 2, 7)), "https://example.org/a.jpg", "absent.jpg"])
def test_what_is_no_image_is_refused(predictor: Predictor, bad: Any) -> None:
    with pytest.raises(ImageError):
        predictor(bad)


def test_damaged_files_are_refused_by_name(predictor: Predictor, tmp_path: Path) -> None:
    for name, content in {"empty.jpg": b"", "text.png": b"hello", "cut.jpg": _jpeg(64)[:300]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name):
            predictor(tmp_path / name)
    with pytest.raises(ImageError, match="folder"):
        predictor(tmp_path)


def test_bad_settings_are_refused(weights: Path, tmp_path: Path) -> None:
    for settings in ({"confidence": 1.5}, {"iou": 0}, {"device": "abacus"}, {"classes": ["aple"]}, {"image_size": 0}):
        with pytest.raises(ConfigError):
            Predictor(weights, **settings)
    with pytest.raises(ConfigError, match="Did you mean 'apple'"):
        Predictor(weights, classes=["aple"])
    with pytest.raises(CheckpointError):
        Predictor(tmp_path / "absent.safetensors")


def test_classes_by_name_and_label(weights: Path) -> None:
    assert resolve_classes(["plum", 0, "1"], NAMES) == (0, 1, 2)
    assert resolve_classes("pear", NAMES) == (1,)
    assert resolve_classes(["7"], ("1", "7")) == (1,)  # a class that is called by a number
    for bad in ([3], ["-1"], [], [True], ["x"]):
        with pytest.raises(ConfigError):
            resolve_classes(bad, NAMES)
    found = Predictor(weights, confidence=0.0, classes=["pear"])(np.zeros((96, 96, 3), np.uint8))
    assert set(found.names) == {"pear"}


def _jpeg(side: int, seed: int = 0) -> bytes:
    return cv2.imencode(".jpg", np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))[1].tobytes()


def write_clip(path: Path, frames: int = 5, size_hw: tuple[int, int] = (64, 96)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, size_hw[::-1])
    assert writer.isOpened()
    for i in range(frames):
        writer.write(square_image(size_hw, (8 * i, 8, 8 * i + 30, 50)))
    writer.release()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder: three good images, one damaged, one clip, a text file and a subfolder."""
    folder = tmp_path / "media"
    (folder / "deep").mkdir(parents=True)
    for name in ("img10.jpg", "img2.jpg", "deep/a.jpg"):
        (folder / name).write_bytes(_jpeg(64))
    Image.fromarray(square_image((40, 80), (10, 10, 50, 30))).save(folder / "B.PNG")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "notes.txt").write_text("not an image")
    write_clip(folder / "clip.mp4")
    return folder


def test_sources_expand_lazily_and_in_order(media: Path) -> None:
    found = find_sources([media, str(media / "deep" / "*.jpg"), media / "img2.jpg", "absent.jpg", "http://x/y.jpg"])
    assert [path.name for path in found.images] == ["B.PNG", "broken.jpg", "img2.jpg", "img10.jpg", "a.jpg"]
    assert [path.name for path in found.videos] == ["clip.mp4"]
    assert [item.source for item in found.unreadable] == ["absent.jpg", "http://x/y.jpg"]
    assert len(find_sources([str(media / "**" / "*.jpg")]).images) == 4
    (media / "empty").mkdir()
    for nothing in ([], [media / "empty"], ["no/such/*.jpg"], ["absent.jpg"]):
        with pytest.raises(DataError, match="found nothing"):
            find_sources(nothing)


def test_outputs_never_overwrite(tmp_path: Path) -> None:
    assert [new_folder(tmp_path / "runs" / "predict").name for _ in range(3)] == ["predict", "predict-2", "predict-3"]
    source = tmp_path / "a.jpg"
    folder = ResultFolder(tmp_path, [source])
    assert [folder.reserve("a", ".jpg").name for _ in range(2)] == ["a-2.jpg", "a-3.jpg"]


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for output in (theirs, tmp_path / "named", None):
        with pytest.raises(DataError), results_in(output, tmp_path / "usual") as folder:
            raise DataError("refused", "nothing was written", "look")
        assert folder.exists() == (output == theirs)
    with results_in(None, tmp_path / "usual") as folder:
        (folder / "file").touch()
    assert folder == tmp_path / "usual" and (folder / "file").exists()


def test_drawing_marks_the_box_in_its_colour_and_leaves_the_input_alone() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    box = np.array([[100, 60, 200, 160]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), ("a",), (200, 300))
    drawn = draw_detections(image, found)
    assert image.max() == 0 and drawn.shape == image.shape
    np.testing.assert_array_equal(drawn[110, 100], (0x00, 0x72, 0xB2))  # RGB of the first colour
    half = draw_detections(image[::2, ::2].copy(), found)  # a reduced picture: the box is scaled to it
    np.testing.assert_array_equal(half[55, 50], (0x00, 0x72, 0xB2))
    np.testing.assert_array_equal(draw_detections(image, found[np.zeros(1, bool)]), image)


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(predict)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_command_on_a_folder_with_faults(media: Path, weights: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in media.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    result = run(media, "-w", weights, "--conf", 0.0, "--max-detections", 4, "-o", out, "--save-json", "--save-crops")
    assert result.exit_code == 0, result.output
    assert "img2.jpg: 64x64" in result.output and "clip.mp4: 5 frames" in result.output
    assert "broken.jpg" in result.stderr and "1 source could" in result.stderr
    content = json.loads((out / "predictions.json").read_text())
    assert [Path(image["file_name"]).name for image in content["images"]] == ["B.PNG", "img2.jpg", "img10.jpg"]
    assert {row["category_id"] for row in content["detections"]} <= {5, 6, 9}
    assert len(content["unreadable"]) == 1
    assert Image.open(out / "B.png").size == (80, 40)
    assert list((out / "crops").rglob("*.jpg"))
    clip = json.loads((out / "clip.json").read_text())
    assert [frame["frame"] for frame in clip["frames"]] == list(range(5)) and clip["fps"] == pytest.approx(12)
    capture = cv2.VideoCapture(str(out / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5 and capture.read()[1].shape == (64, 96, 3)
    assert before == {path: path.read_bytes() for path in media.rglob("*") if path.is_file()}


def test_command_never_writes_over_its_input(media: Path, weights: Path) -> None:
    before = (media / "img2.jpg").read_bytes()
    assert run(media / "img2.jpg", "-w", weights, "-o", media).exit_code == 0
    assert (media / "img2.jpg").read_bytes() == before and (media / "img2-2.jpg").is_file()


def test_command_numbers_its_folders_and_can_write_nothing(
    media: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(media / "img2.jpg", "-w", weights, "--no-save").exit_code == 0
    assert not (tmp_path / "runs").exists()
    for _ in range(2):
        assert run(media / "img2.jpg", "-w", weights).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["predict", "predict-2"]


def test_command_fails_when_nothing_could_be_read(media: Path, weights: Path, tmp_path: Path) -> None:
    (media / "bad.mp4").write_bytes(b"no video")
    result = run(media / "broken.jpg", media / "bad.mp4", "-w", weights, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "2 sources could" in result.stderr
    result = run("absent.jpg", "-w", weights, "-o", tmp_path / "out")
    assert result.exit_code == 1 and isinstance(result.exception, DataError)
    assert isinstance(run(media, "-w", weights, "--classes", "kiwi").exception, ConfigError)
    assert run(media).exit_code == 2


def test_a_picture_too_large_to_decode_whole_is_read_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = (333, 101, 777, 399)
    cv2.imwrite(str(tmp_path / "large.jpg"), square_image((601, 1203), box))
    monkeypatch.setattr(sources, "MAX_PIXELS", 1000)
    monkeypatch.setattr(sources, "REDUCED_SIDE", 400)
    picture = sources.read_picture(tmp_path / "large.jpg")
    assert max(picture.pixels.shape) == 400 and picture.original_hw == (601, 1203)
    found = Predictor(SquareFinder()).detect([picture])[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(found.xyxy[0], box, atol=4)
    drawn = ResultFolder(tmp_path).save_picture(picture, found)
    assert drawn.name == "large.jpg" and cv2.imread(str(drawn)).shape[1] == 400
    ResultFolder(tmp_path).save_crops(picture, found)
    crop = cv2.imread(str(tmp_path / "crops" / "square" / "large.jpg"))
    assert crop.mean() > 230 and abs(crop.shape[1] - (box[2] - box[0]) / 3) <= 3
