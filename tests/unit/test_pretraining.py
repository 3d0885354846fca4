"""Pre-training: what is refused before work starts, what is drawn from which numbers, and a whole small run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import cloverleaf
from cloverleaf.errors import CheckpointError, CloverleafError, ConfigError, DataError
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.losses.masked_patches import fill_in, normalised_patches
from cloverleaf.pretraining.api import pretrain
from cloverleaf.pretraining.config import ImagesConfig
from cloverleaf.pretraining.data import build_loader, draw_visible, random_crop, to_input, to_picture
from cloverleaf.pretraining.decoder import LightDecoder
from cloverleaf.pretraining.fit import PretrainResult
from cloverleaf.pretraining.geometry import Cells, lay_out
from cloverleaf.pretraining.images import find_images
from cloverleaf.pretraining.optim import decays
from cloverleaf.structures import FeatureSpec
from tiny_datasets import write_coco

NARROW = {"backbone": {"width": 0.125}, "decoder": {"width": 32}, "runtime": {"precision": "fp32", "threads": 1}}


@pytest.fixture(autouse=True)
def same_settings_afterwards() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def write_pictures(folder: Path, count: int = 6) -> Path:
    """Smooth pictures of several sizes, some in a folder below."""
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        path = folder / ("deep/er" if i % 2 else "") / f"{i}.{'jpg' if i % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((90 + 10 * i, 120 - 10 * i), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def quick(pictures: Path, output: Path, **options: Any) -> PretrainResult:
    changes = {**NARROW, "data": {"workers": 0}, **options.pop("overrides", {})}
    return pretrain(
        **{"backbone": "efficient-rep", "images": pictures, "epochs": 3, "image_size": 64, "batch_size": 3,
           "output": output, "overrides": changes, "recipe": "small", **options}
    )  # fmt: skip


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "efficientrep"}, "no backbone 'efficientrep'.*'efficient-rep'"),
        ({"backbone": None}, "--backbone is not given"),
        ({"images": None}, "--images is not given"),
        ({"patch_size": 48}, "--patch-size 48 does not fit a backbone of stride 32.*multiple of 32"),
        ({"patch_size": 64, "image_size": 96}, "--patch-size 64 does not divide --image-size 96"),
        ({"image_size": 80}, "--patch-size 32 does not divide --image-size 80"),
        ({"image_size": 32}, "leaves 0 of 1 patches visible"),
        ({"mask_ratio": 0.05}, "leaves 4 of 4 patches visible"),
        ({"mask_ratio": 1.0}, "mask.ratio = 1.0 is not valid"),
        ({"mask_ratio": 0.7, "batch_size": 1}, "one visible patch of 32 px and one image a step"),
        ({"backbone": "timm/efficientnet_b0", "overrides": {"backbone": {}}}, r"\(SqueezeExcite\) cannot be made"),
        ({"overrides": {"backbone": {"with": 1}}}, "no option 'with'.*'width'"),
        ({"overrides": {"mask": {"rato": 0.5}}}, "no option mask.rato.*mask.ratio"),
        ({"overrides": {"decoder": {"width": 40}}}, "decoder.width = 40 is not possible.*such as 32"),
        ({"recipe": "smal"}, "no recipe 'smal' of pretrain.*'small'"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_work_starts(
    pictures: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CloverleafError, match=message):
        quick(pictures, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_images_are_found_and_counted(pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [path.name for path in find_images(ImagesConfig(source=str(pictures))).paths] == [
        "0.png", "2.jpg", "4.jpg", "1.jpg", "3.png", "5.jpg"
    ]  # fmt: skip
    mixed = write_pictures(tmp_path / "mixed", 2)
    (mixed / "text.jpg").write_text("no image")
    (mixed / "empty.png").touch()
    Image.new("RGB", (4, 4)).save(mixed / "dot.png")
    (mixed / "notes.txt").write_text("not looked at")
    (mixed / ".hidden").mkdir()
    Image.new("RGB", (40, 40)).save(mixed / ".hidden" / "thumb.png")
    found = find_images(ImagesConfig(source=str(mixed)))
    assert (len(found), found.unreadable) == (2, 3)
    assert "3 of 5 images cannot be used and are left out" in caplog.text and "dot.png has 4 x 4 pixels" in caplog.text


def test_nothing_usable_is_an_error(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no image")
    (tmp_path / "none").mkdir()
    for source, message in (
        (tmp_path / "absent", "the path does not exist"),
        (tmp_path / "none", "no file below it ends in"),
        (tmp_path / "bad", "1 files look like images and none can be read"),
        (pictures / "0.png", "is one image"),
    ):
        with pytest.raises(DataError, match=message):
            quick(source, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_of_a_dataset_the_training_split_is_used(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    source = folder if folder.suffix else next(folder.rglob("*train*.json"))
    found = find_images(ImagesConfig(source=str(source)))
    assert [path.stem for path in found.paths] == ["a", "c"]


# --- what is drawn


def test_samples_depend_on_seed_epoch_and_image_only(pictures: Path) -> None:
    images, cells = find_images(ImagesConfig(source=str(pictures))), Cells(2, 32, 2)
    config = ImagesConfig(image_size=64, batch_size=2, workers=0)

    def batches(epoch: int, seed: int = 0, **options: Any) -> list[Any]:
        workers = options.pop("workers", 0)
        loader = build_loader(images.paths, replace(config, workers=workers), cells, seed=seed, **options)
        loader.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        return list(loader)

    whole = batches(1)
    assert all(batch.images.shape == (2, 3, 64, 64) and batch.images.dtype == torch.uint8 for batch in whole)
    assert all((batch.visible.sum((1, 2, 3)) == 2).all() for batch in whole)
    for others in (batches(1), batches(1, workers=1)):
        assert all(torch.equal(a.images, b.images) for a, b in zip(whole, others, strict=True))
        assert all(torch.equal(a.visible, b.visible) for a, b in zip(whole, others, strict=True))
    halves = [batches(1, rank=rank, world_size=2) for rank in range(2)]
    for n, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([halves[0][n].images, halves[1][n].images]))
    assert not torch.equal(whole[0].images, batches(2)[0].images)
    assert not torch.equal(whole[0].images, batches(1, seed=1)[0].images)


def test_an_image_that_cannot_be_read_any_more_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_pictures(tmp_path, 3)
    images = find_images(ImagesConfig(source=str(folder)))
    images.paths[0].write_bytes(images.paths[0].read_bytes()[:200])
    loader = build_loader(images.paths, ImagesConfig(image_size=64, batch_size=3, workers=0), Cells(2, 32, 2), seed=0)
    for _ in range(2):
        [batch] = list(loader)
    assert len(batch) == 3
    assert caplog.text.count("another image takes its place") == 1
    for path in images.paths[1:]:
        path.unlink()
    with pytest.raises(DataError, match="no image can be read any more"):
        next(iter(loader))


def test_crops_and_masks() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 60, 100).contiguous()
    rng = np.random.default_rng(0)
    config = ImagesConfig(image_size=48, scale=0.67)
    crops = [random_crop(ramp, config, rng).float() for _ in range(40)]
    falling = sum(bool(crop[0, 0, 0] > crop[0, 0, -1]) for crop in crops)
    widths = [float(crop[0, 0].max() - crop[0, 0].min()) for crop in crops]
    assert all(crop.shape == (3, 48, 48) for crop in crops) and 10 < falling < 30
    assert min(widths) > 50 and max(widths) > 75  # 67 to 100 % of the area at aspects of 3/4 to 4/3, where they fit
    strip = torch.zeros(3, 8, 400, dtype=torch.uint8)
    assert random_crop(strip, config, rng).shape == (3, 48, 48)
    masks = torch.stack([draw_visible(Cells(4, 32, 6), np.random.default_rng(i)) for i in range(200)]).float()
    assert (masks.sum((1, 2, 3)) == 6).all() and (masks.mean(0) - 6 / 16).abs().max() < 0.12


def test_layout_is_the_published_one() -> None:
    assert lay_out(224, 32, 0.6, stride=32, images_per_step=8) == Cells(7, 32, 20)
    assert lay_out(128, 0, 0.6, stride=32, images_per_step=8) == Cells(4, 32, 6)
    assert lay_out(256, 64, 0.5, stride=32, images_per_step=1) == Cells(4, 64, 8)


@pytest.mark.parametrize("normalize", ["none", "imagenet"])
def test_pixels_and_inputs(normalize: str) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    values = to_input(images, normalize)
    assert torch.equal(to_picture(values, normalize), images)
    assert (float(values.min()) < 0) == (normalize == "imagenet")
    target, _, _ = normalised_patches(values, 32)
    visible = torch.tensor([[[[1, 0], [0, 1]]]] * 2, dtype=torch.bool)
    perfect = fill_in(values, target.reshape(values.shape), visible, 32)
    torch.testing.assert_close(perfect, values, rtol=1e-4, atol=1e-4)


# --- decoder and optimiser


@pytest.mark.parametrize(
    ("strides", "blocks"), [((8, 16, 32), 5), ((4, 8, 16, 32), 5), ((8, 16, 32, 64), 6), ((16,), 4), ((2, 4), 2)]
)
def test_decoder_fits_any_strides_that_double(strides: tuple[int, ...], blocks: int) -> None:
    cells = VisibleCells()
    cells.show(torch.tensor([[[[1, 0], [0, 1]]]] * 2, dtype=torch.bool))
    features = FeatureSpec(tuple(8 + s for s in strides), strides)
    decoder = LightDecoder(features, 64, cells)
    side = 2 * strides[-1]
    maps = [torch.randn(2, c, side // s, side // s) for c, s in zip(features.channels, strides, strict=True)]
    pixels = decoder(maps)
    assert len(decoder.blocks) == blocks and pixels.shape == (2, 3, side, side)
    pixels.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters() if p.ndim == 4)


@pytest.mark.parametrize("strides", [(4, 16, 32), (6, 12, 24)])
def test_other_strides_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be pre-trained"):
        LightDecoder(FeatureSpec((8, 8, 8), strides), 64, VisibleCells())


def test_what_decays() -> None:
    decoder = LightDecoder(FeatureSpec((8, 16), (2, 4)), 16, VisibleCells())
    decaying = {name for name, parameter in decoder.named_parameters() if decays(name, parameter)}
    convolutions = {f"{n}.weight" for n, m in decoder.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert decaying == convolutions


# --- a run


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return quick(pictures, tmp_path_factory.mktemp("finished") / "run", overrides={"optimizer": {"lr": 2.0}}, epochs=6)


def test_run_folder_is_complete(finished: PretrainResult, pictures: Path) -> None:
    folder = finished.run_dir
    for name in ("config.yaml", "results.csv", "metrics.json", "report.html", "weights/backbone.safetensors",
                 "checkpoint/last.ckpt", "pictures/reconstructions.png", "pictures/training.png"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows]
    assert len(rows) == 6 and losses[-1] < losses[0] and 0.5 < losses[0] < 1.5
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["loss"] == losses[-1] and metrics["run"]["images"] == 6 and metrics["run"]["visible_patches"] == 2
    report = (folder / "report.html").read_text()
    assert report.count("data:image/") == 2 and "--backbone-weights" in report and "http" not in report
    assert Image.open(folder / "pictures" / "reconstructions.png").size[0] > 1000


def test_weights_start_a_detector(finished: PretrainResult) -> None:
    from cloverleaf.training.backbone_weights import take_backbone
    from cloverleaf.training.config import ModelConfig

    model = cloverleaf.create_model("gold-yolo-n", num_classes=2, backbone={"width": 0.125}, neck={"width": 0.25})
    from rich.console import Console

    take_backbone(model, ModelConfig(name="gold-yolo-n", backbone_weights=str(finished.weights)), Console(quiet=True))
    saved = load_file(finished.weights)
    assert all(torch.equal(value, saved[key]) for key, value in model.backbone.state_dict().items())
    assert model.backbone.stem.dense_norm.running_mean.abs().sum() > 0


def test_resume(finished: PretrainResult, pictures: Path, tmp_path: Path) -> None:
    assert pretrain(output=finished.run_dir, resume=True) == finished  # it is complete: nothing is done
    with pytest.raises(ConfigError, match=r"--resume with another mask\.ratio"):
        pretrain(output=finished.run_dir, resume=True, mask_ratio=0.5)
    with pytest.raises(ConfigError, match="no configuration file"):
        pretrain(output=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="is already in use"):
        quick(pictures, finished.run_dir)
    (finished.run_dir / "report.html").rename(tmp_path / "report.html")
    extra = pictures / "another.png"
    Image.new("RGB", (64, 64)).save(extra)
    try:
        with pytest.raises(CheckpointError, match="the images are not those that it began with"):
            pretrain(output=finished.run_dir, resume=True)
    finally:
        extra.unlink()
        (tmp_path / "report.html").rename(finished.run_dir / "report.html")


def test_a_configuration_repeats_bit_for_bit_and_bf16_runs(pictures: Path, tmp_path: Path) -> None:
    first = quick(pictures, tmp_path / "first", overrides={"runtime": {**NARROW["runtime"], "deterministic": True}})
    again = pretrain(config=first.run_dir / "config.yaml", output=tmp_path / "again")
    a, b = load_file(first.weights), load_file(again.weights)
    assert all(torch.equal(a[key], b[key]) for key in a)
    half = quick(pictures, tmp_path / "half", epochs=1, overrides={"runtime": {"precision": "bf16", "threads": 1}})
    assert half.metrics["loss"] == pytest.approx(first.metrics["first_loss"], rel=0.02)
