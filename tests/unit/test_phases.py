"""Phases of a run: what holds when, what is refused, and that a resumed run is the unbroken one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import cloverleaf
from cloverleaf.data.loader import TrainDataset, build_train_loader
from cloverleaf.data.procedural import make_shapes
from cloverleaf.errors import CloverleafError, ConfigError
from cloverleaf.recipes.resolve import resolve
from cloverleaf.structures import ByEpoch
from cloverleaf.training import fit
from cloverleaf.training.config import OptimizerConfig, ScheduleConfig, TrainConfig
from cloverleaf.training.config_io import from_dict, read_config, update, write_config
from cloverleaf.training.phases import resolve_phases
from cloverleaf.training.schedule import Schedule
from documented import run_commands, text_from

THREE: dict[str, Any] = {
    "epochs": 10,
    "phases": {
        "first": {"until": 5, "schedule": {"span": "phase"}},
        "strong": {"until": 8, "augment": {"mosaic9": 0.7, "scale": 0.8}, "loss": {"obj": 0.5}},
        "final": {"until": 10, "augment": {"scale": 0.8}, "schedule": {"final_factor": 0.1}},
    },
}


def changed(**phases: Any) -> dict[str, Any]:
    """The three phases with other values laid over."""
    merged = {name: {**THREE["phases"][name], **phases.get(name, {})} for name in THREE["phases"]}
    return {**THREE, "phases": {**merged, **{name: v for name, v in phases.items() if name not in merged}}}


def test_by_epoch() -> None:
    values = ByEpoch((3, 5), ("a", "b"))
    assert [values.at(epoch) for epoch in (0, 2, 2.9, 3, 4, 5, 99)] == ["a", "a", "a", "b", "b", "b", "b"]
    assert (values.end(2), values.end(7), values.place(3)) == (3, 5, 1)
    made = ByEpoch((1, 2, 3), (1, 2, 1)).map(lambda number: [number])
    assert made.values[0] is made.values[2] is not made.values[1]
    for ends in ((), (3,), (3, 3), (0, 2), (4, 2)):
        with pytest.raises(ValueError, match="ascending"):
            ByEpoch(ends, ("a", "b"))


def test_what_holds_when(tmp_path: Path) -> None:
    config = from_dict(THREE)
    phases = resolve_phases(config)
    assert [phase.epochs for phase in phases.values] == ["epochs 1 to 5", "epochs 6 to 8", "epochs 9 to 10"]
    usual = config.augment
    assert [phases.at(epoch).augment.mosaic9 for epoch in (4, 5, 7, 8)] == [usual.mosaic9, 0.7, 0.7, usual.mosaic9]
    assert [phases.at(epoch).loss.obj for epoch in (0, 5, 9)] == [1.0, 0.5, 1.0]
    assert phases.values[1].differences(config) == {"augment.mosaic9": 0.7, "augment.scale": 0.8, "loss.obj": 0.5}
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert list(config.phases) == ["first", "strong", "final"]
    whole = resolve_phases(TrainConfig(epochs=7))
    assert whole.ends == (7,) and whole.values[0].name == "" and whole.values[0].loss == TrainConfig().loss


@pytest.mark.parametrize(
    ("epochs", "ends"),
    [(10, [5, 8, 10]), (20, [10, 16, 20]), (5, [3, 4, 5]), (3, [1, 2, 3]), (4, [2, 3, 4]), (1000, [500, 800, 1000])],
)
def test_phases_scale_with_the_epochs(epochs: int, ends: list[int]) -> None:
    scaled = update(from_dict(THREE), {"epochs": epochs})
    assert resolve_phases(scaled).ends == tuple(ends)
    assert update(from_dict(THREE), {"epochs": epochs, "phases": None}).phases == {}
    if epochs == 20:
        moved = update(from_dict(THREE), {"epochs": 20, "phases": {"strong": {"until": 18}}})
        assert resolve_phases(moved).ends == (10, 18, 20)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (changed(strong={"augment": {"mosaik9": 1}}), ["phases.strong.augment.mosaik9", "mosaic9"]),
        (changed(strong={"augmnt": {}}), ["phases.strong.augmnt", "augment"]),
        (changed(strong={"data": {"image_size": 64}}), ["phases.strong.data"]),
        (changed(strong={"augment": {"scale": 3}}), ["phases.strong.augment", "scale", "3"]),
        (changed(strong={"augment": 3}), ["phases.strong.augment", "section"]),
        (changed(strong={"until": 4}), ["phases.strong.until = 4", "phases.first", "5"]),
        (changed(final={"until": 9}), ["phases.final.until = 9", "10 epochs"]),
        (changed(first={"until": 0}), ["phases.first", "until is missing"]),
        ({"epochs": 4, "phases": {"No-1": {"until": 4}}}, ["phases.No-1"]),
        (changed(strong={"schedule": {"warmup_epochs": 1}}), ["phases.strong.schedule.warmup_epochs", "no effect"]),
        (changed(strong={"augment": {"close_mosaic": 1}}), ["close_mosaic", "no effect"]),
        (changed(strong={"augment": {"mosaic": 0, "mixup": 0.2}}), ["phases.strong.augment.mixup", "no effect"]),
        (changed(strong={"augment": {}, "loss": {}, "schedule": {}}, first={"schedule": {}}), ["strong", "no effect"]),
        ({**changed(), "augment": {"close_mosaic": 6}}, ["phases.strong.augment.mosaic9", "close_mosaic", "epoch 4"]),
        ({"schedule": {"span": "phase"}}, ["schedule.span", "no phases"]),
        (changed(final={"schedule": {"span": "phase"}}), ["phases.final.schedule.span", "ends with the run"]),
        ({**changed(), "patience": 9}, ["patience = 9 has no effect", "last phase only, final"]),
        ({"epochs": 4, "phases": [1, 2]}, ["phases"]),
    ],
)  # fmt: skip
def test_refused_before_training(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_phases(from_dict(values))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_too_few_epochs_for_the_phases() -> None:
    with pytest.raises(ConfigError, match="2 for 3 phases"):
        update(from_dict(THREE), {"epochs": 2})


@pytest.mark.parametrize(("until", "words"), [(4, "until = 4 is out of order"), (0, "has no end")])
def test_scaling_hides_no_wrong_end(until: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve_phases(update(from_dict(changed(strong={"until": until})), {"epochs": 20}))


def test_rate_follows_the_phase() -> None:
    """The first phase's curve ends with it; those after it are parts of the curve of the whole run."""
    config = update(from_dict(THREE), {"schedule": {"update": "epoch-exact", "warmup_epochs": 0,
                                                    "warmup_min_iterations": 0, "final_factor": 0.2}})  # fmt: skip
    phases = resolve_phases(config).map(lambda phase: phase.schedule)

    def rate(epoch: int, schedule: Schedule) -> float:
        return schedule.at(epoch * 4).lr[1]

    run = Schedule(config.schedule, OptimizerConfig(), 10, 4, 64, phases=phases)
    alone = Schedule(config.schedule, OptimizerConfig(), 5, 4, 64)
    whole = Schedule(config.schedule, OptimizerConfig(), 10, 4, 64)
    for epoch in range(10):
        expected = alone if epoch < 5 else whole
        if epoch < 8:
            assert rate(epoch, run) == rate(epoch, expected)
        else:
            assert rate(epoch, run) < rate(epoch, whole)


def test_a_phase_that_decays_after_the_warm_up() -> None:
    """Its curve ends with it all the same."""
    usual = ScheduleConfig(decay_after_warmup=True, update="epoch-exact", warmup_epochs=2, warmup_min_iterations=0)
    phases = ByEpoch((5, 10), (replace(usual, span="phase"), usual))
    run, alone, whole = (
        Schedule(usual, OptimizerConfig(), epochs, 4, 64, phases=of_run)
        for epochs, of_run in ((10, phases), (5, None), (10, None))
    )
    assert [run.at(4 * epoch) for epoch in range(5)] == [alone.at(4 * epoch) for epoch in range(5)]
    assert [run.at(4 * epoch) for epoch in range(5, 10)] == [whole.at(4 * epoch) for epoch in range(5, 10)]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("phases") / "shapes"
    make_shapes(place, seed=3, images=8, size=64, splits={"train": 6, "val": 2}, workers=0)
    return place


def test_samples_change_with_the_phase(shapes: Path) -> None:
    """The same draws with other settings, whatever came before."""
    from cloverleaf.data.config import AugmentConfig, DataConfig
    from cloverleaf.data.source import open_index

    index, data = open_index(str(shapes), "train"), DataConfig(image_size=64, batch_size=2, workers=0)
    mild, strong = AugmentConfig(mosaic=0.0, scale=0.0), AugmentConfig(mosaic=1.0, mosaic9=1.0)
    by_epoch = build_train_loader(index, data, ByEpoch((2, 4), (mild, strong)), epochs=4, seed=1).dataset
    assert isinstance(by_epoch, TrainDataset)
    for epoch, augment in ((1, mild), (2, strong), (3, strong)):
        alone = build_train_loader(index, data, augment, epochs=4, seed=1).dataset
        assert (by_epoch[epoch, 3].image == alone[epoch, 3].image).all()


OPTIONS = {
    "data": {"image_size": 64, "batch_size": 2, "workers": 0, "cache": "none"},
    "model": {"name": "yolov7-tiny", "backbone": {"width": 0.0625}, "neck": {"width": 0.0625},
              "head": {"width": 0.0625}},
    "schedule": {"warmup_min_iterations": 4, "warmup_epochs": 0, "nominal_batch": 4},
    "loss": {"autobalance": True},
    "optimizer": {"lr": 0.001},
    "auto_anchor": False,
    "evaluation": {"interval": 4},
    "runtime": {"device": "cpu", "precision": "fp32", "deterministic": True, "threads": 1},
    "phases": {"calm": {"until": 2, "schedule": {"span": "phase"}},
               "strong": {"until": 4, "augment": {"mosaic9": 1.0, "mixup": 0.5},
                          "loss": {"assigner": "anchor_ratio", "gains": "yolor"}}},
}  # fmt: skip


class Stopped(Exception):
    """Stands for a machine that goes down."""


def interrupted(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int, **options: Any) -> None:
    """Train until a batch of an epoch (counted from 0), and no further."""
    from cloverleaf.training.task import DetectionTask

    step = DetectionTask.training_step

    def stopping(self: DetectionTask, data: Any, index: int) -> Any:
        if (self.current_epoch, index) == (epoch, batch):
            raise Stopped
        return step(self, data, index)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "training_step", stopping)
        with pytest.raises(Stopped):
            cloverleaf.train(**options)


def test_resumed_anywhere_equals_unbroken(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped inside the first phase, at the boundary and inside the second: the same weights, bit for bit."""
    monkeypatch.setattr(fit, "finish", lambda *_, **__: None)
    new: dict[str, Any] = {"data": shapes, "epochs": 4, "recipe": "yolov7-tiny", "overrides": OPTIONS}
    whole, run = tmp_path / "whole", tmp_path / "run"
    cloverleaf.train(output=whole, **new)
    said = capsys.readouterr().out
    assert "phase calm, epochs 1 to 2" in said and "phase strong, epochs 3 to 4: augment.mosaic9=1.0" in said
    assert "epoch   3/4 strong" in said
    interrupted(monkeypatch, 1, 1, output=run, **new)
    interrupted(monkeypatch, 2, 0, output=run, resume=True)
    interrupted(monkeypatch, 3, 1, output=run, resume=True)
    cloverleaf.train(output=run, resume=True)
    expected, found = (load_file(place / "weights" / "last.safetensors") for place in (whole, run))
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    rows = [line.split(",") for line in (run / "results.csv").read_text().splitlines()]
    assert [row[rows[0].index("phase")] for row in rows[1:]] == ["1", "1", "2", "2"]


def test_commands_and_file_of_the_document(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives the configuration that the text says; training itself is tried above."""
    section = text_from("training.md", "Phases").split("\n## ", 1)[0]
    found: list[ByEpoch[Any]] = []
    monkeypatch.setattr(fit, "fit", lambda config, **_: found.append(resolve_phases(config)))
    monkeypatch.chdir(tmp_path)
    run_commands(section, lambda words: [str(shapes) if word == "data.yaml" else word for word in words], print)
    assert [phases.ends for phases in found] == [(8, 11, 12), (67, 90, 100), (100,)]
    assert found[1].values[1].augment.mixup == 0.3
    [text] = re.findall(r"^```yaml\n(.*?)^```$", section, re.M | re.S)
    assert resolve_phases(from_dict(yaml.safe_load(text))).ends == (40, 55, 60)


def test_options_of_a_phase_that_do_not_fit_the_model(shapes: Path, tmp_path: Path) -> None:
    run, phases = tmp_path / "run", {"one": {"until": 1}, "two": {"until": 2, "loss": {"dense": {"cls": 2.0}}}}
    with pytest.raises(CloverleafError, match=r"phase two: loss\.dense\.cls"):
        cloverleaf.train("yolov7-tiny", shapes, epochs=2, recipe="small", output=run, overrides={"phases": phases})
    assert not run.exists()
    phases["two"] = {"until": 2, "augment": {"scale": 0.1}}
    with pytest.raises(CloverleafError, match=r"^loss\.dense\.cls"):  # of the run, and so of every phase
        cloverleaf.train("yolov7-tiny", shapes, epochs=2, recipe="small", output=run,
                         overrides={"phases": phases, "loss": {"dense": {"cls": 2.0}}})  # fmt: skip
    phases["two"] = {"until": 2, "augment": {"paste_in": 0.5}}
    with pytest.raises(CloverleafError, match=r"phase two: augment\.paste_in"):
        cloverleaf.train(task="instance", data=shapes, epochs=2, recipe="mask-rcnn", output=run,
                         overrides={"phases": phases})  # fmt: skip


def test_phases_cannot_change_on_resuming(shapes: Path, tmp_path: Path) -> None:
    write_config(from_dict({**THREE, "data": {"source": str(shapes)}}), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"phases\.strong\.until"):
        cloverleaf.train(output=tmp_path, resume=True, overrides=["phases.strong.until=9"])
    resolved, _ = resolve({"epochs": 20}, config_file=tmp_path / "config.yaml")
    assert resolve_phases(resolved).ends == (10, 16, 20)
