"""Progress for people: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from cloverleaf.training.callbacks.record import RecordCallback, Row
from cloverleaf.training.tasks import RUN_TASKS, spoken


class _Bar(Progress):
    """A bar with a line of numbers below it, so that both fit a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar and the numbers."""
        yield from super().get_renderables()
        yield Text(self.numbers, no_wrap=True, overflow="ellipsis")


class ProgressCallback(pl.Callback):
    """Shows losses, what the task is judged by, images per second and the time left.

    Args:
        record: where the numbers come from.
        epochs: length of the run.
        console: where to print; a live bar only when it is a terminal.
    """

    LINE_EVERY = 60.0  # seconds between two plain lines inside an epoch

    def __init__(self, record: RecordCallback, epochs: int, console: Console) -> None:
        self.record, self.epochs, self.console = record, epochs, console
        record.announce = self.epoch_line
        self._progress: _Bar | None = None
        self._task: Any = None
        self._epoch_started = self._last_line = 0.0
        self._phase = ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Say which phase begins or goes on, and open the epoch's bar."""
        if (name := self._phase_name(trainer.current_epoch)) != self._phase:
            self._phase = name
            line = self.record.phases.at(trainer.current_epoch).line(self.record.config)
            self.console.print(line, highlight=False, markup=False)
        self._epoch_started = self._last_line = time.perf_counter()
        if self.console.is_terminal:
            if self._progress is None:
                self._progress = _Bar(
                    TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                    TextColumn("{task.fields[left]}"), console=self.console, transient=True,
                )  # fmt: skip
                self._progress.start()
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(
                self._place(trainer.current_epoch + 1), total=trainer.num_training_batches, left=""
            )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar; without a terminal print a line a minute."""
        now = time.perf_counter()
        done = batch_idx + 1
        if self._progress is not None:
            self._progress.numbers = self._numbers(now)
            self._progress.update(self._task, completed=done, left=self._left(trainer, done, now))
        elif now - self._last_line > self.LINE_EVERY:
            self._last_line = now
            total = trainer.num_training_batches
            self.console.print(
                f"{self._place(trainer.current_epoch + 1)}  {done}/{total}  {self._numbers(now)}  "
                f"{self._left(trainer, done, now)}",
                highlight=False,
            )

    def _place(self, epoch: int, width: int = 0) -> str:
        """``epoch 7/12 strong``: where the run stands."""
        name = self._phase_name(epoch - 1)
        return f"epoch {epoch:>{width}}/{self.epochs}" + (f" {name}" if name else "")

    def _phase_name(self, epoch: int) -> str:
        """Of the phase of an epoch, counted from 0; empty in a run without phases."""
        return self.record.phases.at(epoch).name

    def _numbers(self, now: float) -> str:
        """Losses, the last of what the task is judged by, images per second."""
        parts = [f"{name} {value:.4f}" for name, value in self.record.losses.items()]
        if self.record.rows and (value := self.record.rows[-1][self._headline[0]]) is not None:
            parts.append(f"{spoken(self._headline[0])} {value:.3f}")
        if self.record._images:
            parts.append(f"{self.record._images / max(now - self._epoch_started, 1e-9):.1f} img/s")
        return "  ".join(parts)

    @property
    def _headline(self) -> tuple[str, ...]:
        return RUN_TASKS[self.record.config.task].headline

    def _left(self, trainer: pl.Trainer, done: int, now: float) -> str:
        total = trainer.num_training_batches
        left = total - done + (self.epochs - trainer.current_epoch - 1) * total
        return f"{duration(left * (now - self._epoch_started) / done)} left"

    def epoch_line(self, row: Row) -> None:
        """Print the line of a recorded epoch."""
        epoch = int(row["epoch"] or 0)
        losses = "  ".join(
            f"{k.removeprefix('train/')} {v:.4f}" for k, v in row.items() if k.startswith("train/") and v is not None
        )
        first, judged = self._headline[0], [f"{spoken(name)} {row[name] or 0:.3f}" for name in self._headline]
        found = f"{spoken(first)} -" if row[first] is None else "  ".join(judged)
        left = (self.epochs - epoch) * self.record.seconds / max(len(self.record.rows), 1)
        self.console.print(
            f"{self._place(epoch, 3)}  {losses}  {found}  {row['images_per_second']:.1f} img/s  "
            f"{row['seconds']:.1f} s  {duration(left)} left",
            highlight=False,
        )

    def close(self) -> None:
        """Remove the live bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remove the live bar."""
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Remove the live bar, so that the error is readable; after Ctrl-C say how to go on."""
        self.close()
        if isinstance(exception, KeyboardInterrupt):
            self.console.print(
                f"stopped; go on with: cloverleaf train --resume --output {self.record.run_dir}",
                highlight=False,
                markup=False,
            )


def duration(seconds: float) -> str:
    """``3725`` -> ``1h 02m``; ``75`` -> ``1m 15s``."""
    whole = max(round(seconds), 0)
    if whole >= 3600:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 60}m {whole % 60:02d}s" if whole >= 60 else f"{whole}s"
