"""Training on a share of the images."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from cloverleaf.data.config import DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.procedural.make import make_shapes
from cloverleaf.data.source import open_index
from cloverleaf.data.subset import shared_count, take_share
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.fit import open_data


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share") / "data"
    make_shapes(folder, images=15, size=96, splits={"train": 12, "val": 3}, workers=0)
    return folder


def names(index: DetectionIndex) -> list[str]:
    return [index.image_path(i).name for i in range(len(index))]


@pytest.mark.parametrize(
    ("total", "fraction", "count"), [(205, 0.1, 20), (3, 0.01, 1), (1, 1.0, 1), (10, 0.999, 10), (7, 0.5, 4)]
)
def test_counts(total: int, fraction: float, count: int) -> None:
    assert shared_count(total, fraction) == count


def test_a_share_is_the_same_images_with_all_that_belongs_to_them(dataset: Path) -> None:
    whole = open_index(dataset)
    share = take_share(whole, 0.5, seed=3)
    assert len(share) == 6 and names(share) == [name for name in names(whole) if name in names(share)]
    where = {name: i for i, name in enumerate(names(whole))}
    full, part = whole.to_coco(), share.to_coco()
    assert part["images"] == [full["images"][where[name]] for name in names(share)]
    ids = {image["id"] for image in part["images"]}
    assert part["annotations"] == [one for one in full["annotations"] if one["image_id"] in ids]
    assert any("segmentation" in one for one in part["annotations"])
    for i, name in enumerate(names(share)):
        a, b = share.objects(i), whole.objects(where[name])
        assert np.array_equal(a.boxes_xyxy, b.boxes_xyxy) and np.array_equal(a.labels, b.labels)
        for ours, theirs in zip(a.polygons or (), b.polygons or (), strict=True):
            assert all(np.array_equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_the_seed_decides_and_larger_shares_hold_smaller_ones(dataset: Path) -> None:
    whole = open_index(dataset)
    some = {seed: names(take_share(whole, 0.3, seed)) for seed in range(4)}
    assert len({tuple(chosen) for chosen in some.values()}) > 1
    assert names(take_share(whole, 0.3, 0)) == some[0]  # found again
    assert set(some[0]) < set(names(take_share(whole, 0.6, 0)))
    assert take_share(whole, 1.0, 0) is whole
    assert names(pickle.loads(pickle.dumps(take_share(whole, 0.3, 0)))) == some[0]  # as worker processes get it


def test_a_run_trains_on_the_share_and_judges_on_all(dataset: Path) -> None:
    data = open_data(TrainConfig(seed=1, data=DataConfig(source=str(dataset), fraction=0.25)))
    assert (len(data.train), len(data.val)) == (3, 3)
    assert names(data.train) == names(take_share(open_index(dataset), 0.25, 1))
