"""The runs of a study, one after another or several at a time."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status

from cloverleaf import atomic
from cloverleaf.ablation.folder import Folder
from cloverleaf.ablation.items import Plan, Run
from cloverleaf.ablation.launch import Process, Share
from cloverleaf.ablation.metrics import TABLES
from cloverleaf.ablation.results import judged_file, reached, read_run
from cloverleaf.errors import CloverleafError
from cloverleaf.predict.evaluate import evaluate
from cloverleaf.training.callbacks.progress import duration
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.finish import read_result

_LOOK_EVERY = 0.2  # seconds


@dataclass
class Work:
    """The runs that are left, and those under way."""

    plan: Plan
    folder: Folder
    lock: int
    shares: list[Share]
    say: Console
    after: Callable[[], object]
    active: list[Process] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    done: int = 0

    def go(self) -> None:
        """Run all; a failed run does not stop the others, and nothing goes on when this ends."""
        try:
            self._run_all()
        finally:
            self.stop()

    def _run_all(self) -> None:
        waiting: deque[Run] = deque()
        for made in self.plan.preparations:  # tried again, so that nobody fails for want of them yet
            self.folder.failure(made.name).unlink(missing_ok=True)
        for run in self.plan.jobs:
            if self.folder.state(run.name) != "complete":
                waiting.append(run)
                continue
            self.done += 1
            self.folder.failure(run.name).unlink(missing_ok=True)
            if self._judge(run):  # complete, but stopped before it was judged on the split of the table
                self._line(run, "complete")
        free = deque(self.shares)
        with _status(self.say) as status:
            while waiting or self.active:
                while free and (ready := self._next(waiting)) is not None:
                    self.active.append(Process(self.folder, ready, free.popleft(), self.lock))
                time.sleep(_LOOK_EVERY)
                for process in [process for process in self.active if process.poll() is not None]:
                    self._ended(process, len(waiting))
                    self.active.remove(process)
                    free.append(process.share)
                if status is not None:
                    status.update(", ".join(self._where(process) for process in self.active))

    def _next(self, waiting: deque[Run]) -> Run | None:
        """Take the first run that has all it needs; those that will never have it fail."""
        for run in list(waiting):
            lacking = self.folder.missing(run)
            broken = [job for job in self.plan.preparations if self.folder.reason(job.name) and _makes(job, lacking)]
            if not lacking:
                waiting.remove(run)
                return run
            if broken:
                self._give_up(run, waiting, f"{broken[0].title} failed: {self.folder.reason(broken[0].name)}")
            elif not self.active and not any(_makes(job, lacking) for job in waiting):
                self._give_up(run, waiting, f"{lacking[0]} is missing")  # it was there when the study began
        return None

    def _give_up(self, run: Run, waiting: deque[Run], reason: str) -> None:
        waiting.remove(run)
        self.done += 1
        self.folder.note_failure(run.name, reason)
        self._line(run, "not started")
        self.after()

    def stop(self) -> None:
        """End what is under way; every run can be resumed."""
        for process in self.active:
            process.interrupt()
        try:
            for process in self.active:
                process.wait()
        finally:  # also after a second Ctrl-C
            for process in self.active:
                process.kill()

    def _ended(self, process: Process, waiting: int) -> None:
        run, code = process.run, process.poll()
        self.done += 1
        left = ""
        if code == 0 and read_result(self.folder.run_dir(run.name)) is not None:
            self._judge(run)
            if not process.resumed:
                self.seconds.append(process.seconds)
        elif code is not None:
            process.fail(code)
        if (waiting or len(self.active) > 1) and self.seconds:
            rounds = (waiting + len(self.active) - 1) / len(self.shares)
            left = f", about {duration(rounds * statistics.mean(self.seconds))} left"
        self._line(run, f"in {duration(process.seconds)}{left}")
        self.after()

    def _line(self, run: Run, text: str) -> None:
        reason = self.folder.reason(run.name)
        if run.step or run.seed is None:
            numbers = reached(self.folder, run) or ""
        else:
            plan = self.plan
            found = read_run(self.folder, run.variation, run.seed, plan.study.split, plan.val_split, plan.task)
            numbers = _numbers(found.metrics, TABLES[plan.task].columns)
        if reason:
            numbers = f"FAILED, {reason}"
        total = len(self.plan.jobs)
        self.say.print(
            f"[{self.done:>{len(str(total))}}/{total}] {run.title}: {numbers} {text}",
            highlight=False, markup=False,
        )  # fmt: skip

    def _judge(self, run: Run) -> bool:
        """Judge the best weights on the study's split if that is not the one of the training; False if it was done."""
        split, config = self.plan.study.split, run.config
        path = judged_file(self.folder, run.name, split)
        if split == self.plan.val_split or path.is_file() or run.step or not isinstance(config, TrainConfig):
            return False
        result = read_result(self.folder.run_dir(run.name))
        assert result is not None
        try:
            judged = evaluate(
                result.best_weights, config.data.source, split, image_size=config.data.image_size,
                config=config.evaluation, device=config.runtime.device, workers=0,
                boxes_as_masks=config.data.boxes_as_masks,
            )  # fmt: skip
        except CloverleafError as error:
            self.folder.note_failure(run.name, f"judging on {split}: {error.what}: {error.why}")
            return True
        atomic.write_json(path, judged.to_json())
        return True

    def _where(self, process: Process) -> str:
        path = self.folder.run_dir(process.run.name) / "results.csv"
        epochs = len(path.read_text(encoding="utf-8").splitlines()) - 1 if path.is_file() else 0
        run = process.run
        return f"{run.title}: {epochs} of {run.config.epochs} epochs"


def _makes(job: Run, files: Sequence[str]) -> bool:
    """Whether one of the files is to come from the job."""
    return any(file.startswith(f"{job.name}/") for file in files)


def _numbers(metrics: Mapping[str, float | None], columns: Mapping[str, str]) -> str:
    shown = {label: metrics.get(name) for name, label in list(columns.items())[:2]}
    return ", ".join(f"{name} {'-' if value is None else format(value, '.3f')}" for name, value in shown.items())


@contextmanager
def _status(say: Console) -> Iterator[Status | None]:
    """A live line on a terminal, nothing elsewhere."""
    if not say.is_terminal:
        yield None
        return
    with say.status("starting") as status:
        yield status


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let a terminated or hung-up study stop its runs as Ctrl-C does, instead of leaving them alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
