"""What a study consists of once it has been found sound: variations, preparations and the runs of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloverleaf.ablation.study import Study
from cloverleaf.models.spec import DetectorSpec, Task
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.record import WEIGHTS as BACKBONE
from cloverleaf.training.config import TrainConfig

PREPARED = "prepared"  # folder of what is prepared, among those of the runs
IMAGES = f"{PREPARED}/.images"  # the training images, for pre-training
_WEIGHTS = {"train": "weights/best.safetensors", "pretrain": BACKBONE.as_posix()}


@dataclass(frozen=True, slots=True)
class Run:
    """One process that trains or pre-trains.

    Attributes:
        variation, seed: which one; the variation is empty for what is prepared, the seed None for what all seeds share.
        config: complete, but for `output` and ``needs``.
        needs: what stands at these keys once it is there: files below the folder of all runs.
        step: the preparation that it makes.
    """

    variation: str
    seed: int | None
    config: TrainConfig | PretrainConfig
    needs: Mapping[str, str] = field(default_factory=dict)
    step: str = ""

    @property
    def name(self) -> str:
        """Of its folder, below that of all runs."""
        return run_name(f"{PREPARED}/{self.step}" if self.step else self.variation, self.seed)

    @property
    def title(self) -> str:
        """For people."""
        name = f"prepare {self.step}" if self.step else self.variation
        return name if self.seed is None else f"{name} seed {self.seed}"

    @property
    def verb(self) -> Literal["train", "pretrain"]:
        """The command that does it."""
        return "pretrain" if isinstance(self.config, PretrainConfig) else "train"


def run_name(name: str, seed: int | None) -> str:
    """Name of the run's folder."""
    return name if seed is None else f"{name}-seed{seed}"


@dataclass(frozen=True, slots=True)
class Variation:
    """One row of the table.

    Attributes:
        name: of the variation.
        changes: what it changes, by dotted key.
        config: its run, with the first seed.
        spec: its detector, with the dataset's classes.
        needs: steps by the configuration key that takes their weights.
    """

    name: str
    changes: dict[str, Any]
    config: TrainConfig
    spec: DetectorSpec
    needs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What must be there before variations that need it.

    Attributes:
        name: of the step.
        run: how it is made; `file` is given.
        per_seed: made once with every seed, for the runs of that seed.
        config: with the first seed; None for a file.
        given: the file.
        needs: as of a variation.
        about: one line for the table.
        spec: of the detector that is trained.
    """

    name: str
    run: Literal["train", "pretrain", "file"]
    per_seed: bool = False
    config: TrainConfig | PretrainConfig | None = None
    given: Path | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    spec: DetectorSpec | None = None

    def file(self, seed: int | None) -> str:
        """Where its weights lie, below the folder of all runs."""
        if self.given is not None:
            return f"{PREPARED}/{self.name}{self.given.suffix}"
        return f"{run_name(f'{PREPARED}/{self.name}', seed if self.per_seed else None)}/{_WEIGHTS[self.run]}"


def files_of(needs: Mapping[str, str], steps: Mapping[str, Step], seed: int) -> dict[str, str]:
    """The files for a run with that seed, by configuration key."""
    return {key: steps[name].file(seed) for key, name in needs.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that has been found sound.

    Attributes:
        study: as read.
        task: of all variations.
        variations: all of the study, the baseline first.
        runs: those asked for, seed by seed, so that a study that is cut short has whole rounds.
        seeds: of the runs.
        shared: what all variations set, by dotted key.
        dataset: name and numbers of images for the table.
        steps: all preparations of the study by name.
        preparations: the runs of those that are needed by the runs asked for.
        images: to learn from, for steps that pre-train; empty where there is none.
    """

    study: Study
    task: Task
    variations: tuple[Variation, ...]
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    shared: dict[str, Any]
    dataset: dict[str, Any]
    steps: Mapping[str, Step] = field(default_factory=dict)
    preparations: tuple[Run, ...] = ()
    images: tuple[Path, ...] = ()

    @property
    def val_split(self) -> str:
        """The split that chooses the best epoch of every run."""
        return self.variations[0].config.data.val_split

    @property
    def jobs(self) -> list[Run]:
        """Everything in its order: shared preparations, then seed by seed those of the seed and its runs."""
        shared = [run for run in self.preparations if run.seed is None]
        rounds = [run for seed in self.seeds for run in (*self.preparations, *self.runs) if run.seed == seed]
        return [*shared, *rounds]
