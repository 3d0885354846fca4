"""`cloverleaf inspect` from end to end: the commands of its document, other models, and wrong input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cloverleaf.cli.main import app
from cloverleaf.errors import CloverleafError, ConfigError, DataError
from cloverleaf.inspection import InspectOptions, inspect
from cloverleaf.inspection.pictures import short
from cloverleaf.models.catalog import create_model
from cloverleaf.models.detector import Detector
from cloverleaf.weights.format import save

TEXT = (Path(__file__).parents[2] / "docs" / "inspect.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S) for line in block.splitlines()]
SMALL = InspectOptions(image_size=64, max_images=6, fit_decoder=2)


def revcol(width: int = 8, **options: Any) -> Detector:
    torch.manual_seed(0)
    backbone = {"channels": (width, 8, 8, 8), "layers": (1, 1, 1, 1), "columns": 2}
    return create_model("revcol-pico+none+dense", num_classes=2, backbone=backbone, **options)


def elan(**neck: Any) -> Detector:
    return create_model("elan-tiny+fpn+dense", num_classes=2, backbone={"width": 0.125}, neck={"width": 8, **neck})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "photos").mkdir()
    for i in range(6):
        coarse = np.random.default_rng(i).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"no image")
    save(revcol(supervision="columns"), folder / "runs" / "train" / "weights" / "best.safetensors")
    save(revcol(52), folder / "revcol-tiny.safetensors")
    save(elan(implicit={"align": "add"}), folder / "yolov7-tiny.safetensors")
    return folder


def test_the_document(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        small = ["--image-size", "64"] * ("--images" in words) + ["--fit-decoder", "2"] * ("1000" in words)
        result = CliRunner().invoke(app, [*words, *small])
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"
        assert "results in" in result.output and ("broken.jpg" in result.output) == ("--images" in words)
    first, second, third, vectors, features = (
        json.loads((work / "runs" / name / "inspect.json").read_text("utf-8"))
        for name in ("inspect", "inversion", "compared", "implicit", "implicit-features")
    )
    files = {path.relative_to(work / "runs").as_posix() for path in (work / "runs").rglob("*.png")}
    assert files == {f"inspect/{name}.png" for name in
                     ("inversion", "inversion_errors", "decoders_trained", "similarity")} | {
        "inversion/inversion.png", "inversion/inversion_errors.png",
        "compared/decoders_trained.png", "compared/decoders_fitted.png", "compared/similarity.png",
        "implicit/implicit_neck_align.png", "implicit-features/implicit_neck_align.png",
        "implicit-features/implicit_neck_align_features.png",
    }  # fmt: skip
    assert all(f"`{Path(name).name}`" in TEXT for name in files), "a picture is not in the document"
    assert len(first["images"]) == 6 and first["inversion"]["patch"] == {"kept": 7, "of": 48}
    assert [one["name"] for one in first["decoder"]["trained"]] == ["column 1"] and "fitted" not in first["decoder"]
    assert np.shape(first["similarity"]["cka"]) == (9, 9) == (len(first["similarity"]["labels"]),) * 2
    np.testing.assert_allclose(np.diag(first["similarity"]["cka"]), 1, atol=1e-6)
    assert second["inversion"]["stem"]["settled"] and second["inversion"]["patch"] == {"kept": 48, "of": 48}
    assert second["inversion"]["image"]["largest_error"] < 1e-6
    assert max(second["inversion"]["columns"][0]["float64_all_columns"]) < 1e-9
    names = [one["name"] for one in third["decoder"]["fitted"]["maps"]]
    assert "alignment" not in vectors["implicit"] and vectors["images"] == []
    assert [one["label"] for one in features["implicit"]["alignment"]["neck.align"]["levels"]] == [
        "stride 8",
        "stride 16",
    ]
    assert names == ["column 1", "column 2", "elan-tiny+fpn+dense (yolov7-tiny.safetensors)"]


def test_other_backbones_and_one_column(work: Path) -> None:
    """What applies is done, and why the rest does not is said."""
    result = inspect(elan(), [work / "photos"], work / "elan", SMALL)
    assert set(result.findings) == {"decoder", "similarity"} and "reversible columns" in result.left_out["inversion"]
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "decoders_fitted.png", "inspect.json", "similarity.png",
    ]  # fmt: skip
    single = create_model("revcol-pico+none+dense", num_classes=2, backbone={"columns": 1, "normalize": True})
    of_one = inspect(single, [work / "photos" / "0.jpg"], work / "one", InspectOptions(image_size=32))
    assert set(of_one.left_out) == {"decoder", "similarity", "implicit"}
    facts = of_one.findings["inversion"].facts
    assert facts["columns"] == [] and facts["stem"]["settled"] and min(facts["image"]["psnr_db"]) > 20


def test_few_cells_and_videos_are_told(work: Path, tmp_path: Path) -> None:
    """What chance makes of four cells is said; a video, which is no image, is left out and said."""
    video = tmp_path / "film.mp4"
    video.write_bytes(b"any")
    said: list[str] = []
    options = InspectOptions(only=("similarity",), image_size=64)
    found = inspect(elan(), [work / "photos" / "0.jpg", video], tmp_path / "out", options, said.append)
    assert f"left out {video}: it is a video" in said
    assert found.findings["similarity"].notes[1].startswith("4 cells are few")


def test_numbers_of_a_picture_keep_their_sign() -> None:
    assert [short(value) for value in (0.984, 1.0, -0.31, -0.001, -1.2)] == [".98", "1.00", "-.31", ".00", "-1.20"]


@pytest.mark.parametrize(
    ("options", "images", "error", "message"),
    [
        ({"only": ("inversion",)}, "photos", ConfigError, "only reversible columns"),
        ({"only": ("similarities",)}, "photos", ConfigError, "no inspection"),
        ({"only": ()}, "photos", ConfigError, "names a kind twice, or none"),
        ({"only": ("similarity", "similarity")}, "photos", ConfigError, "names a kind twice, or none"),
        ({"only": ("similarity",), "fit_decoder": 5}, "photos", ConfigError, "has no effect"),
        ({"image_size": 72}, "photos", ConfigError, "image size 72"),
        ({"max_images": 1, "fit_decoder": 2}, "photos", ConfigError, "decoder is not possible"),
        (
            {"only": ("similarity",), "image_size": 32, "max_images": 2},
            "photos",
            ConfigError,
            "similarity is not possible",
        ),
        ({"compare": "no-such-model"}, "photos", CloverleafError, "no-such-model"),
        ({"compare": "model.onnx"}, "photos", ConfigError, "exported file"),
        ({"only": ("implicit",)}, "photos", ConfigError, "has no implicit knowledge; give its head or neck some"),
        ({}, "photos/broken.jpg", DataError, "no image"),
        ({}, "nowhere", DataError, "found nothing"),
    ],
)
def test_wrong_input_is_refused_before_work_starts(
    work: Path, tmp_path: Path, options: dict[str, Any], images: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        inspect(elan(), [work / images], tmp_path / "out", InspectOptions(**{"image_size": 64, **options}))
    assert not (tmp_path / "out").exists()
