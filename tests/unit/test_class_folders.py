"""Image folders for classification: what is read and refused, and samples that follow from (seed, epoch, image)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from class_folders import COLOURS, write_class_folders
from cloverleaf.data.check import check_dataset
from cloverleaf.data.class_loader import build_class_eval_loader, build_class_train_loader
from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.config import DataConfig
from cloverleaf.data.convert import convert_dataset
from cloverleaf.data.image_io import read_image
from cloverleaf.data.require_classes import require_class_folders, require_objects
from cloverleaf.data.seeded import seeded
from cloverleaf.data.soft_targets import mix
from cloverleaf.data.source import list_splits, open_index
from cloverleaf.data.transforms.whole_images import EvalTransform, TrainTransform
from cloverleaf.errors import CloverleafError, ConfigError, DataError
from cloverleaf.structures import Batch
from cloverleaf.training.config_io import from_dict
from cloverleaf.training.tasks import check_options
from tiny_datasets import NAMES, OBJECTS, write_coco

DATA = DataConfig(image_size=32, batch_size=4, workers=0)
PUBLISHED = ClassifyConfig(erasing=1.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("classes"))


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders, tmp_path / "copy", ignore=shutil.ignore_patterns(".*")))


def batches(folder: Path, *, epoch: int = 0, start: int = 0, workers: int = 0) -> list[Batch]:
    data = replace(DATA, workers=workers)
    loader = build_class_train_loader(open_index(folder), data, PUBLISHED, seed=3)
    loader.batch_sampler.sampler.resume(epoch, start)  # type: ignore[union-attr]
    return list(loader)


def test_an_image_is_one_object_of_its_class(folders: Path) -> None:
    assert list_splits(folders) == ["train", "val"]
    index = open_index(folders, "train")
    assert index.names == tuple(COLOURS) and len(index) == 18 and index.removed == {}
    assert np.bincount(index.labels).tolist() == [6, 6, 6]
    for i in range(len(index)):
        height, width = index.size_hw(i)
        assert index.objects(i).boxes_xyxy.tolist() == [[0, 0, width, height]]
        assert index.image_path(i).parent.name == index.names[int(index.labels[i])]


def test_samples_follow_from_seed_epoch_and_image(folders: Path) -> None:
    whole, workers, rest = batches(folders), batches(folders, workers=2), batches(folders, start=8)
    other = batches(folders, epoch=1)
    assert [len(batch) for batch in whole] == [4, 4, 4, 4, 2]
    for one, two in zip(whole, workers, strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.targets.labels, two.targets.labels)
    for one, two in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.image_ids, two.image_ids)
    first = {int(i): image for batch in whole for i, image in zip(batch.image_ids, batch.images, strict=True)}
    again = {int(i): image for batch in other for i, image in zip(batch.image_ids, batch.images, strict=True)}
    assert first.keys() == again.keys() and not any(torch.equal(first[i], again[i]) for i in first)


def test_global_generators_are_left_as_they_were() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.random.get_rng_state()
    expected = np.random.RandomState(1).rand(2)
    with seeded(1, 2):
        drawn = torch.rand(3), np.random.rand()  # noqa: NPY002
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), drawn[0]) and np.random.rand() == drawn[1]  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.random.rand(2).tolist() == expected.tolist()  # noqa: NPY002


@pytest.mark.parametrize(("size", "short"), [(64, 73), (112, 128), (224, 256)])
def test_small_inputs_are_judged_by_their_centre(size: int, short: int) -> None:
    """A wide image: the short side is scaled to int(256 / 224 * size), and columns left and right are cut off."""
    ramp = np.broadcast_to(np.linspace(0, 255, 4 * short), (2 * short, 4 * short))
    image = np.repeat(ramp.astype(np.uint8)[..., None], 3, 2)
    seen = EvalTransform(size)(image)
    assert seen.shape == (size, size, 3)
    left = round((2 * short - size) / 2)
    expected = np.array(Image.fromarray(image).resize((2 * short, short), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(seen[0], expected[round((short - size) / 2), left : left + size])


def test_large_inputs_see_the_whole_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    expected = np.array(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(EvalTransform(256)(image), expected)


def test_training_without_draws_is_the_whole_image() -> None:
    """Only the crop is left, here of the whole image, and 8-bit pixels come through timm's normalisation unharmed."""
    config = ClassifyConfig(least_area=1.0, fliplr=0, rand_augment=None, erasing=0)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(TrainTransform(config, 32)(image), image)
    noisy = TrainTransform(replace(config, erasing=1.0), 32)(image)
    changed = (noisy != image).any(2)
    assert 0.01 < changed.mean() < 0.34 and noisy.dtype == np.uint8


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mixing_keeps_sums_and_pairs_from_both_ends(count: int) -> None:
    images = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, 8, 8).clone()
    labels = torch.arange(count)
    config = ClassifyConfig(cutmix=0.0, label_smoothing=0.0)
    mixed, targets = mix(images.clone(), labels, 6, config, (0, 7))
    again, _ = mix(images.clone(), labels, 6, config, (0, 7))
    assert torch.equal(mixed, again) and mixed.shape == images.shape
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    # what a label weighs in the target, its image weighs in the mixture
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.arange(6.0))
    cut, shares = mix(images.clone(), labels, 6, ClassifyConfig(mixup=0.0, label_smoothing=0.0), (0, 1))
    torch.testing.assert_close(cut[:, 0].mean((1, 2)), shares @ torch.arange(6.0))


def test_smoothing_alone_leaves_the_images() -> None:
    images = torch.rand(2, 3, 8, 8)
    mixed, targets = mix(images, torch.tensor([0, 3]), 4, ClassifyConfig(mixup=0, cutmix=0), (0,))
    assert mixed is images
    torch.testing.assert_close(targets[1], torch.tensor([0.025, 0.025, 0.025, 0.925]))


def lose_images(root: Path) -> None:
    for path in (root / "train" / "red").iterdir():
        path.unlink()


def lose_class(root: Path) -> None:
    shutil.rmtree(root / "val" / "green")


def one_class(root: Path) -> None:
    for split in ("train", "val"):
        for name in ("green", "red"):
            shutil.rmtree(root / split / name)


def no_splits(root: Path) -> None:
    for path in (root / "train").iterdir():
        path.rename(root / path.name)
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "empty class": (lose_images, "train", "red: the class folder 'red' holds no images"),
    "class in one split only": (lose_class, "val", "not those of train: it lacks 'green'"),
    "one class": (one_class, "train", "has 1 class folder"),
    "no splits": (no_splits, "train", r"Put the folders of the classes into train/ and val/"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_learned_is_refused(name: str, copy: Path) -> None:
    harm, split, message = BROKEN[name]
    harm(copy)
    with pytest.raises(DataError, match=message):
        open_index(copy, split)


def test_the_linter_finds_all_of_it(copy: Path) -> None:
    lose_images(copy)
    lose_class(copy)
    codes = {finding.code for finding in check_dataset(copy, workers=1).findings}
    assert {"class-folder-empty", "class-folders-differ"} <= codes


def test_unreadable_images_are_left_out_or_replaced(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    (copy / "train" / "red" / "0.png").write_bytes(b"no image")  # seen when the index is built
    index = open_index(copy, "train")
    assert len(index) == 17 and index.removed == {"unreadable images": 1} and "data check" in caplog.text
    for split in ("train", "val"):
        damaged = copy / split / "red" / "1.png"
        damaged.write_bytes(damaged.read_bytes()[:-400])  # the header is whole
        seen = build_class_eval_loader(open_index(copy, split), DATA)
        assert sum(len(batch) for batch in seen) == len(open_index(copy, split))
    assert "val/red/1.png" in caplog.text and "judged as a grey image" in caplog.text
    loader = build_class_train_loader(open_index(copy), DATA, PUBLISHED, seed=0)
    assert sum(len(batch) for batch in loader) == 17
    assert "the next image takes its place" in caplog.text


def test_objects_and_whole_images_are_not_taken_for_each_other(folders: Path, tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco")
    with pytest.raises(DataError, match="no folder for each class") as caught:
        require_class_folders(open_index(coco))
    assert f"data convert {coco.resolve()} --to class-folders" in caught.value.fix
    with pytest.raises(DataError, match="Use --task classify"):
        require_objects(open_index(folders))


def test_objects_are_cut_out(tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "coco")
    report = convert_dataset(coco, "class-folders", tmp_path / "crops")
    assert report.objects == {"train": 2, "val": 1}
    label, x1, y1, x2, y2 = OBJECTS["a"][0]
    whole = read_image(coco / "images" / "a.png")
    expected = whole[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
    np.testing.assert_array_equal(read_image(tmp_path / "crops" / "train" / NAMES[label] / "a_1.png"), expected)
    assert report.lost["classes of which split 'train' has no object (bee)"] == 1
    with pytest.raises(ConfigError, match="link has no effect"):
        convert_dataset(coco, "class-folders", tmp_path / "again", copy_images=False)


REFUSED = {
    "augment.mosaic": ({"task": "classify", "augment": {"mosaic": 0.5}}, "augment.mosaic = 0.5 has no effect"),
    "data.cache": ({"task": "classify", "data": {"cache": "ram"}}, "data.cache = 'ram' has no effect"),
    "evaluation.iou": ({"task": "classify", "evaluation": {"iou": 0.5}}, "evaluation.iou = 0.5 has no effect"),
    "classify.mixup": ({"classify": {"mixup": 0.1}}, "classify.mixup = 0.1 has no effect"),
    "classify.colour_jitter": ({"task": "classify", "classify": {"colour_jitter": 0.4}}, "RandAugment takes its place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_effect_are_refused(name: str) -> None:
    values, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        check_options(from_dict(values))


def test_a_policy_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(CloverleafError, match="rand_augment"):
        from_dict({"task": "classify", "classify": {"rand_augment": "rand-m9-q3"}})
