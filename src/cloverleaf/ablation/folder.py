"""The folder of a study: what has been done in it already, and whether that still belongs to the study."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from cloverleaf import atomic
from cloverleaf.ablation.items import IMAGES, PREPARED, Plan, Run
from cloverleaf.ablation.plan import run_of
from cloverleaf.ablation.prepare import preparations
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.training.checkpoint import find_checkpoint
from cloverleaf.training.config_io import Config, flatten, nest, read, to_dict, update
from cloverleaf.training.finish import read_result

State = Literal["complete", "resumable", "new"]
_FOLDERS = ("runs", "configs", "logs")
_MAY_DIFFER = {"output", "seed", "data.workers", "data.cache", "runtime.threads", "runtime.device"}


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths of a study.

    Attributes:
        root: the folder; made by `claim`.
    """

    root: Path

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.root / "runs"

    def run_dir(self, name: str) -> Path:
        """An ordinary run folder."""
        return self.runs / name

    def config_file(self, name: str) -> Path:
        """The configuration that a run is started with."""
        return self.root / "configs" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """What a run printed."""
        return self.root / "logs" / f"{name}.log"

    def failure(self, name: str) -> Path:
        """Why a run failed; there is none after a good one."""
        return self.root / "logs" / f"{name}.failed"

    @property
    def study_file(self) -> Path:
        """A copy of the study file."""
        return self.root / "study.yaml"

    @property
    def results(self) -> Path:
        """All numbers of the table."""
        return self.root / "results.json"

    def state(self, name: str) -> State:
        """What can be done with a run."""
        run_dir = self.run_dir(name)
        if read_result(run_dir) is not None:
            return "complete"
        try:
            find_checkpoint(run_dir)
        except CheckpointError:
            return "new"
        return "resumable"

    def clear(self, name: str) -> None:
        """Remove what a run left that was stopped before its first checkpoint; nothing is lost with it."""
        if self.state(name) == "new" and self.run_dir(name).exists():
            shutil.rmtree(self.run_dir(name))

    def note_failure(self, name: str, reason: str) -> None:
        """Keep the reason for the table."""
        atomic.write_text(self.failure(name), " ".join(reason.split()) + "\n")

    def reason(self, name: str) -> str | None:
        """Why the run failed the last time, None if it did not."""
        path = self.failure(name)
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def seeds(self, variation: str) -> list[int]:
        """Seeds of the variation (or of `PREPARED`/NAME) that have a run folder or a failure."""
        above, _, own = variation.rpartition("/")
        stems = [path.name for path in (self.runs / above).glob("*-seed*")]
        stems += [path.stem for path in (self.root / "logs" / above).glob("*-seed*.failed")]
        parts = (stem.rpartition("-seed") for stem in stems)
        return sorted({int(seed) for name, _, seed in parts if name == own and seed.isdecimal()})

    def missing(self, run: Run) -> list[str]:
        """What the run needs and is not there yet, as files below the folder of all runs."""
        return [file for file in run.needs.values() if not self._is_there(file)]

    def _is_there(self, file: str) -> bool:
        run_dir = (self.runs / file).parents[1]
        return (self.runs / file).exists() and (
            file.count("/") < 2 or self.state(run_dir.relative_to(self.runs).as_posix()) == "complete"
        )

    def with_needs(self, config: Config, needs: Mapping[str, str]) -> Config:
        """``config`` with the places of what it needs."""
        return update(config, nest({key: str((self.runs / file).resolve()) for key, file in needs.items()}))


def check_folder(folder: Folder, plan: Plan) -> None:
    """Refuse a folder that holds something else, and runs that the study no longer describes; new ones are welcome.

    Raises:
        ConfigError: names the variation and what changed.
    """
    root = folder.root
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not folder.study_file.is_file())):
        raise ConfigError(f"--output {root} is already in use", "it holds no study", "choose another folder")
    if folder.study_file.is_file() and (name := _name_in(folder.study_file)) != plan.study.name:
        raise ConfigError(
            f"--output {root} belongs to another study", f"that of {name!r}, not {plan.study.name!r}",
            "choose another folder",
        )  # fmt: skip
    for variation in plan.variations:
        for seed in folder.seeds(variation.name):
            _check_run(folder, run_of(variation, seed, plan.steps), f"variation {variation.name!r}")
    first = plan.study.seeds[0]
    for name, step in plan.steps.items():
        for run in preparations(plan.steps, {name}, first, folder.seeds(f"{PREPARED}/{name}")):
            if run.step == name:
                _check_run(folder, run, f"step {name!r}")
        if step.given is not None:
            kept = folder.runs / step.file(None)
            if kept.exists() and not filecmp.cmp(kept, step.given, shallow=False):
                raise ConfigError(
                    f"--prepared {name}={step.given} is another file", f"runs were made with {kept}",
                    "give the same one, or choose another --output",
                )  # fmt: skip


def _name_in(study_file: Path) -> Any:
    try:
        values = yaml.safe_load(study_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return values.get("name") if isinstance(values, dict) else None


def _check_run(folder: Folder, run: Run, title: str) -> None:
    run_dir = folder.run_dir(run.name)
    if folder.state(run.name) == "new":
        return
    before = _deciding(read(type(run.config), run_dir / "config.yaml"))
    now = _deciding(folder.with_needs(run.config, run.needs))
    for key, file in run.needs.items():
        if Path(str(before.get(key))).as_posix().endswith(f"/{file}"):
            before[key] = now[key]  # also when the folder of the study has been moved
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        shown = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"{title} has changed since {run_dir} was made", f"{shown}{more}",
            "give it another name, change it back, remove its runs, or choose another --output",
        )  # fmt: skip


def _deciding(config: Any) -> dict[str, Any]:
    """What decides the result of a run."""
    return {key: value for key, value in flatten(to_dict(config)).items() if key not in _MAY_DIFFER and value != {}}


@contextmanager
def claim(folder: Folder, study_text: str) -> Iterator[int]:
    """Make the folder, and hold it for this process and the runs that inherit the descriptor that this yields.

    Raises:
        ConfigError: it cannot be written, or another process works in it.
    """
    import fcntl

    try:
        for name in _FOLDERS:
            (folder.root / name).mkdir(parents=True, exist_ok=True)
        lock = (folder.root / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"cannot write to --output {folder.root}", str(error), "choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder.root} is in use", "another ablate, or a run that one started, still works in it",
                "wait for it, end it, or choose another --output",
            ) from None  # fmt: skip
        atomic.write_text(folder.study_file, study_text)
        yield lock.fileno()


def lay_out(folder: Folder, plan: Plan) -> None:
    """Put in place what steps need: given files, and the training images without anything else."""
    if not plan.steps:
        return
    for name in _FOLDERS:
        (folder.root / name / PREPARED).mkdir(exist_ok=True)
    for step in plan.steps.values():
        if step.given is not None and not (kept := folder.runs / step.file(None)).exists():
            shutil.copyfile(step.given, kept)
    if any(IMAGES in run.needs.values() for run in plan.preparations):
        images = folder.runs / IMAGES
        images.mkdir(exist_ok=True)
        for k, path in enumerate(plan.images):
            link = images / f"{k:06d}-{path.name}"
            if not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(path.resolve())
