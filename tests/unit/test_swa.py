"""Averaging over the last epochs of a run: which epochs, at which rate, and that the file is their mean."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cloverleaf as cl
from cloverleaf.data.config import AugmentConfig
from cloverleaf.data.procedural import make_shapes
from cloverleaf.data.source import open_index
from cloverleaf.reports.tables import series
from cloverleaf.training import finish
from cloverleaf.training.config import OptimizerConfig, ScheduleConfig, SwaConfig, TrainConfig
from cloverleaf.training.config_io import read_config
from cloverleaf.training.finish import TrainResult
from cloverleaf.training.recalibrate import augmentation_of, recalibrate
from cloverleaf.training.schedule import Schedule

OPTIONS = [
    "model.backbone.width=0.125", "model.neck.width=0.125", "data.workers=0", "data.cache=none", "runtime.device=cpu",
    "runtime.precision=fp32", "runtime.threads=1", "evaluation.interval=9", "save_every=1", "ema.enabled=false",
    "auto_anchor=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swa") / "shapes"
    make_shapes(folder, seed=3, images=10, size=64, splits={"train": 8, "val": 2}, workers=0)
    return folder


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "draw_run", lambda *_, **__: None)  # most of the time of such short runs


def train(data: Path, output: Path, *options: str) -> TrainResult:
    return cl.train(data=data, epochs=4, image_size=64, batch_size=4, output=output, overrides=[*OPTIONS, *options])


@pytest.mark.parametrize(
    ("start", "every", "epochs", "expected"),
    [
        (0.75, 1, 8, [7, 8]), (0.0, 1, 3, [1, 2, 3]), (0.5, 2, 8, [6, 8]), (0.5, 3, 8, [5, 8]), (0.99, 1, 4, [4]),
        (0.75, 9, 8, [8]), (0.29, 1, 100, list(range(30, 101))), (0.75, 1, 1, [1]),
    ],
)  # fmt: skip
def test_which_epochs_count(start: float, every: int, epochs: int, expected: list[int]) -> None:
    config = SwaConfig(enabled=True, start=start, every=every)
    assert [epoch + 1 for epoch in range(epochs) if config.counts(epoch, epochs)] == expected
    assert not any(SwaConfig(start=start, every=every).counts(epoch, epochs) for epoch in range(epochs))


@pytest.mark.parametrize("update", ["epoch", "iteration"])
def test_the_rate_is_held_while_averaging(update: str) -> None:
    def rates(swa: SwaConfig) -> list[float]:
        config = ScheduleConfig(update=update, warmup_epochs=1, warmup_min_iterations=0, nominal_batch=0)  # type: ignore[arg-type]
        schedule = Schedule(config, OptimizerConfig(lr=0.1), 8, 5, 4, swa)
        return [schedule.at(iteration).lr[1] for iteration in range(40)]

    plain, held = rates(SwaConfig()), rates(SwaConfig(enabled=True, start=0.5, lr_factor=0.3))
    assert held[:20] == plain[:20] and held[20:] == pytest.approx([0.03] * 20)
    assert rates(SwaConfig(enabled=True)) == plain == rates(SwaConfig(lr_factor=0.3))


def test_swa_is_the_mean_of_the_epochs_with_its_own_statistics(data: Path, tmp_path: Path) -> None:
    result = train(data, tmp_path / "run", "swa.enabled=true", "swa.start=0.5", "swa.images=6")
    assert result.swa_weights is not None
    model, folder = cl.load(result.swa_weights), result.swa_weights.parent
    epochs = [load_file(folder / f"epoch-{epoch:04d}.safetensors") for epoch in (3, 4)]
    for name, value in model.named_parameters():
        mean = np.mean([epoch[name].double().numpy() for epoch in epochs], axis=0).astype(np.float32)
        np.testing.assert_array_equal(value.detach().numpy(), mean, err_msg=name)
        assert epochs[0][name].ne(epochs[1][name]).any(), name
    # The statistics follow from the weights and the images alone, whatever they were before.
    again = cl.load(folder / "epoch-0001.safetensors")
    again.load_state_dict(dict(model.named_parameters()), strict=False)
    config = read_config(tmp_path / "run" / "config.yaml")
    index = open_index(data)
    assert recalibrate(again, index, config.data, augment=augmentation_of(config), images=6, seed=config.seed) == 6
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    facts = model.metadata
    assert facts is not None and facts.statistics.startswith("recomputed on 6 training images")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["weights"]) == ["best", "last", "swa"]
    assert metrics["weights"]["swa"]["epochs"] == [3, 4] and metrics["weights"]["swa"]["batchnorm_images"] == 6
    assert metrics["weights"]["last"]["AP"] == pytest.approx(metrics["AP"], abs=1e-6)  # only the last epoch was judged
    assert "weights/swa.safetensors" in result.report.read_text()


def test_statistics_see_a_mosaic_if_training_did() -> None:
    run = TrainConfig(epochs=4, augment=AugmentConfig(mosaic=0.5, close_mosaic=3))
    assert augmentation_of(run) == run.augment
    assert augmentation_of(dataclasses.replace(run, epochs=3)) == dataclasses.replace(run.augment, mosaic=0)


def test_a_run_that_patience_ends_before_averaging(data: Path, tmp_path: Path) -> None:
    options = ["swa.enabled=true", "swa.start=0.9", "patience=1", "evaluation.interval=1", "evaluation.confidence=0.99"]
    result = train(data, tmp_path / "stopped", *options)
    assert result.swa_weights is None and list(result.metrics["weights"]) == ["best", "last"]
    assert result.metrics["epochs"] < 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([6], "6"),
        ([5, 6], "5, 6"),
        ([4, 5, 6], "4 to 6"),
        ([2, 4, 6], "2 to 6, every 2"),
        ([1, 2, 4], "1, 2, 4"),
    ],
)
def test_series(values: list[int], text: str) -> None:
    assert series(values) == text
