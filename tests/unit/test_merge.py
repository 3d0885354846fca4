"""Averages of weights: the numbers, the statistics that go with them, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import cloverleaf
from cloverleaf.cli.main import app
from cloverleaf.cli.merge import _separate
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import build_sample_loader
from cloverleaf.data.policy import TrainPolicy
from cloverleaf.data.procedural import make_shapes
from cloverleaf.data.source import open_index
from cloverleaf.errors import CheckpointError, CloverleafError, ConfigError, DataError
from cloverleaf.models.detector import Detector
from cloverleaf.structures import Batch, Targets
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import write_config
from cloverleaf.training.recalibrate import recalibrate, recompute_statistics, statistics_of
from cloverleaf.weights import WeightsMetadata, load, merge, read_metadata, save
from cloverleaf.weights.average import WeightAverage

MOSAIC = AugmentConfig(close_mosaic=3)
FACTS = WeightsMetadata(class_names=("cat", "dog"), category_ids=(17, 18), image_size=64, metrics={"AP": 0.5})


def detector(seed: int = 0, num_classes: int = 2, width: float = 0.125) -> Detector:
    torch.manual_seed(seed)
    narrow = {"width": width}
    model = cloverleaf.create_model(
        "yolov7-tiny", num_classes=num_classes, backbone=narrow, neck=narrow, head={"width": 0.125}
    )
    for value in model.state_dict().values():  # as after training: statistics that are not 0 and 1, counters
        if value.is_floating_point() and value.ndim == 1:
            value.add_(torch.rand_like(value))
        elif not value.is_floating_point():
            value.fill_(10 * seed)
    return model


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "weights" / f"{name}.safetensors" for name in "abc"]
    for seed, path in enumerate(paths):
        save(detector(seed), path, metadata=FACTS)
    return paths


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_shapes(folder, seed=3, images=13, size=64, splits={"train": 11, "val": 2}, workers=0)
    return open_index(folder)


@pytest.mark.parametrize("weights", [None, [0.5, 0.3, 0.2], [50, 30, 20]])
def test_merge_is_the_weighted_mean_of_every_tensor(files: list[Path], weights: list[float] | None) -> None:
    merged = merge(files, weights=weights)
    shares = np.array(weights or [1, 1, 1], np.float64)
    shares /= shares.sum()
    states = [load_file(path) for path in files]
    for name, value in merged.state_dict().items():
        if value.is_floating_point():
            mean = sum(share * state[name].double().numpy() for share, state in zip(shares, states, strict=True))
            np.testing.assert_array_max_ulp(value.numpy(), np.asarray(mean, np.float32), maxulp=1)
        else:
            assert value == 20, name
    facts = merged.metadata
    assert facts is not None and not merged.training and facts.statistics == "averaged"
    assert facts.parents == pytest.approx(dict(zip(map(str, files), shares, strict=True)))
    assert (facts.class_names, facts.category_ids, facts.image_size, facts.metrics) == (
        ("cat", "dog"),
        (17, 18),
        64,
        {},
    )
    assert any("add" in name for name in merged.state_dict())  # implicit knowledge is among what was averaged


def test_merge_of_equal_weights_changes_nothing_and_survives_a_save(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        save(detector(7), path, metadata=FACTS)
    merged = merge(files, weights=[0.1, 0.2, 0.7])
    save(merged, tmp_path / "merged.safetensors")
    again = load(tmp_path / "merged.safetensors")
    assert again.metadata == dataclasses.replace(merged.metadata, model=again.spec.name, spec=again.spec.to_dict())
    for name, value in load(files[0]).state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def spoil(model: Detector) -> Detector:
    with torch.no_grad():
        model.head.levels[0].project.bias[0] = torch.nan  # type: ignore[union-attr, index]
    return model


def with_anchors(model: Detector) -> Detector:
    model.head.set_anchors(model.anchors_px * 1.01)
    return model


OTHERS: list[tuple[str, str, Callable[[], Detector], WeightsMetadata]] = [
    ("width", r"backbone.width is 0.25 instead of 0.125", lambda: detector(width=0.25), FACTS),
    ("count", r"other classes: 3 instead of 2", lambda: detector(num_classes=3),
     WeightsMetadata(class_names=("a", "b", "c"))),
    ("unnamed", r"num_classes is 3 instead of 2", lambda: detector(num_classes=3), WeightsMetadata()),
    ("order", r"class 0 is 'dog' instead of 'cat', the same ones in another order", detector,
     dataclasses.replace(FACTS, class_names=("dog", "cat"))),
    ("names", r"class 1 is 'cow' instead of 'dog'\.", detector, dataclasses.replace(FACTS, class_names=("cat", "cow"))),
    ("anchors", r"head.anchors_px.0.0.0 is .* relative to its own anchors.*auto_anchor=false",
     lambda: with_anchors(detector()), FACTS),
    ("fused", r"b.safetensors is fused", lambda: detector().fused(), FACTS),
    ("nan", r"b.safetensors: head.levels.0.project.bias cannot be averaged: .* not finite",
     lambda: spoil(detector()), FACTS),
    ("normalisation", r"another normalisation", detector, dataclasses.replace(FACTS, normalisation="none")),
]  # fmt: skip


@pytest.mark.parametrize(("says", "build", "facts"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_what_differs_is_refused_and_named(
    files: list[Path], says: str, build: Callable[[], Detector], facts: WeightsMetadata
) -> None:
    save(build(), files[1], metadata=facts)
    with pytest.raises(CheckpointError, match=says):
        merge(files)


@pytest.mark.parametrize(
    ("count", "weights", "says"),
    [
        (1, None, "nothing to merge"), (2, [1.0], "1 of them"), (2, [], r"\(none\)"), (2, [1.0, -1.0], "positive"),
        (2, [1.0, 0.0], "positive"), (2, [1.0, float("nan")], "positive"), (2, [float("inf"), 1.0], "finite"),
    ],
)  # fmt: skip
def test_wrong_weights(files: list[Path], count: int, weights: list[float] | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        merge(files[:count], weights=weights)


def test_one_file_under_two_names_and_absent_files(files: list[Path]) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        merge([files[0], files[0].parent / "." / files[0].name])
    with pytest.raises(CheckpointError, match="no such file"):
        merge([files[0], files[0].parent / "absent.safetensors"])


def test_average_goes_on_where_it_stopped() -> None:
    states = [detector(seed).state_dict() for seed in range(3)]
    whole, first, second = WeightAverage(), WeightAverage(), WeightAverage()
    for state in states:
        whole.add(state)
    first.add(states[0])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for state in states[1:]:
        second.add(state)
    for name, value in whole.mean().items():
        assert torch.equal(value, second.mean()[name]), name
    with pytest.raises(CheckpointError, match="1 missing"):
        whole.add({name: value for name, value in states[0].items() if name != "head.anchors_px"})
    with pytest.raises(ValueError, match="nothing"):
        WeightAverage().mean()


class TwoNorms(nn.Module):
    """Convolution, norm, dropout, convolution, norm: small enough to follow by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.03)
        self.second, self.norm2 = nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=0.03)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.second(self.drop(self.norm1(self.first(x)).relu())))


def batch_of(images: Tensor) -> Batch:
    targets = Targets(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), len(images)
    )
    zeros = torch.zeros(len(images), 2, dtype=torch.int64)
    return Batch(images, targets, torch.arange(len(images)), zeros, torch.zeros(len(images), 4))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each channel in float64."""
    values = x.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, unbiased=True)


def test_statistics_are_those_computed_by_hand() -> None:
    """Batches of 5, 5 and 2 images count by their images; the second norm sees the first one's batch statistics."""
    torch.manual_seed(0)
    model = TwoNorms()
    for norm in (model.norm1, model.norm2):
        norm.running_mean.fill_(99)  # type: ignore[union-attr]
    weights = {name: value.clone() for name, value in model.named_parameters()}
    images = torch.randint(0, 256, (12, 3, 9, 11), dtype=torch.uint8)
    batches = images.split(5)
    assert recompute_statistics(model, [batch_of(b) for b in batches]) == 12
    expected: dict[str, Any] = {"norm1": [0.0, 0.0], "norm2": [0.0, 0.0]}
    with torch.no_grad():
        for batch in batches:
            x = model.first(batch.float() / 255)
            one, two = moments(x)
            normed = (x - one[None, :, None, None]) / (x.var((0, 2, 3), unbiased=False) + 1e-5)[
                None, :, None, None
            ].sqrt()
            hidden = model.second(normed.float().relu())
            for name, pair in (("norm1", (one, two)), ("norm2", moments(hidden))):
                for i in range(2):
                    expected[name][i] = expected[name][i] + pair[i] * len(batch) / 12
    for name, (mean, variance) in expected.items():
        norm = model.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, mean.float(), rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
        torch.testing.assert_close(norm.running_var, variance.float(), rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]
        assert norm.momentum == 0.03 and not norm.training and norm.num_batches_tracked == 3
    assert not model.training
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    # The mean of the first layer does not depend on the batches; it is that of all pixels.
    torch.testing.assert_close(model.norm1.running_mean, moments(model.first(images.float() / 255))[0].float())
    with pytest.raises(DataError, match="no images"):
        recompute_statistics(model, [])
    assert recompute_statistics(nn.Conv2d(3, 3, 1), []) == 0


def test_statistics_repeat_and_fit_the_data(shapes: DetectionIndex) -> None:
    """Drawn from the seed, whatever the workers; after them the whole network is centred again."""
    model = detector(1)
    first = copy.deepcopy(model)
    settings = DataConfig(image_size=64, batch_size=4, workers=0)
    assert recalibrate(first, shapes, settings, augment=MOSAIC, images=9) == 9  # batches of 4 and 5: none is left alone
    second = detector(1)
    assert recalibrate(second, shapes, dataclasses.replace(settings, workers=1), augment=MOSAIC, images=9) == 9
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert recalibrate(second, shapes, settings, augment=None, images=100) == 11
    policy = TrainPolicy(shapes, MOSAIC, 64, seed=0)  # the mosaic is open, though it is closed for three epochs
    ids = shapes.image_ids.tolist()
    for batch in build_sample_loader(shapes, settings, MOSAIC, images=9):
        for image, number in zip(batch.images, batch.image_ids.tolist(), strict=True):
            np.testing.assert_array_equal(image.permute(1, 2, 0), policy.build(0, ids.index(number)).image)
    norm = statistics_of(second)[0]
    [batch] = list(build_sample_loader(shapes, dataclasses.replace(settings, batch_size=16), None, images=100))
    assert batch.size_hw == (64, 64) and sorted(batch.image_ids.tolist()) == sorted(shapes.image_ids.tolist())
    with torch.no_grad():
        stem = second.backbone.stem[0].conv(batch.images.float() / 255)  # type: ignore[index, union-attr]
    torch.testing.assert_close(norm.running_mean, moments(stem)[0].float(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="Use 64 or 96"):
        recalibrate(model, shapes, dataclasses.replace(settings, image_size=70), augment=None)
    with pytest.raises(ConfigError, match="single value"):
        recalibrate(model, shapes, DataConfig(image_size=32, batch_size=1, workers=0), augment=None)


@pytest.mark.parametrize(
    ("words", "weights", "expected"),
    [
        (["a", "b"], None, (["a", "b"], None)),
        (["a", "b"], ["1,2"], (["a", "b"], [1, 2])),
        (["a", "b", "0.3", "2e-1"], ["0.5"], (["a", "b"], [0.5, 0.3, 0.2])),
        (["a", "0.5"], None, (["a", "0.5"], None)),
    ],
)
def test_weights_are_written_in_two_ways(words: list[str], weights: list[str] | None, expected: Any) -> None:
    assert _separate(words, weights) == expected
    with pytest.raises(CloverleafError, match="'half' is not a number"):
        _separate(["a"], ["1,half"])


def test_command(files: list[Path], shapes: DetectionIndex, tmp_path: Path) -> None:
    def run(*words: str | Path) -> Result:
        return CliRunner().invoke(app, ["merge", *map(str, words)])

    out = tmp_path / "out" / "merged.safetensors"
    said = run(*files, "-o", out, "--weights", "0.5", "0.3", "0.2", "--data", shapes.source, "--batch-size", "4",
               "--images", "8", "--device", "cpu", "--workers", "0").output  # fmt: skip
    assert "50.0%" in said and "30.0%" in said and "recomputed on 8 images" in said
    facts = load(out).metadata
    assert facts is not None and list(facts.parents.values()) == [0.5, 0.3, 0.2] and facts.image_size == 64
    assert facts.statistics.endswith("not augmented") and "--config" in said
    config = tmp_path / "config.yaml"  # as in a run folder
    write_config(TrainConfig(), config)
    augmented = tmp_path / "augmented.safetensors"
    common = ["--data", shapes.source, "--images", "8", "--device", "cpu", "--workers", "0"]
    assert f"augmented as in {config}" in run(*files, "-o", augmented, *common).output.replace("\n", "")
    before = out.read_bytes()
    assert isinstance(run(*files, "-o", out).exception, ConfigError) and out.read_bytes() == before
    plain = tmp_path / "plain.safetensors"
    assert "note: BatchNorm statistics" in run(*files[:2], "-o", plain).output
    assert read_metadata(plain).statistics == "averaged"
    absent = run(files[0], tmp_path / "absent", "-o", tmp_path / "y.safetensors")
    assert isinstance(absent.exception, CheckpointError) and not (tmp_path / "y.safetensors").exists()
