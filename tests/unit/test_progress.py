"""What a person sees while a model trains."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cloverleaf.data.config import AugmentConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.structures import ByEpoch
from cloverleaf.training.callbacks.progress import ProgressCallback, duration
from cloverleaf.training.config import ScheduleConfig, TrainConfig
from cloverleaf.training.phases import Phase


@pytest.mark.parametrize("name", ["", "strong"])
def test_the_live_bar_fits_a_narrow_terminal(name: str) -> None:
    losses = {"box": 0.1234, "obj": 0.0123, "cls": 0.0456}
    record: Any = SimpleNamespace(losses=losses, rows=[{"AP": 0.6123}], seconds=60.0, _images=1000,
                                  config=TrainConfig(), phases=phases_of(name))  # fmt: skip
    trainer: Any = SimpleNamespace(current_epoch=11, num_training_batches=7393)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    progress = ProgressCallback(record, 300, console)
    progress.on_train_epoch_start(trainer, None)
    progress.on_train_batch_end(trainer, None, None, None, 1233)
    assert progress._progress is not None
    plain = Console(file=io.StringIO(), width=80)
    plain.print(progress._progress.get_renderable())
    progress.close()
    shown = plain.file.getvalue()  # type: ignore[attr-defined]
    for part in (
        f"epoch 12/300 {name}".strip(),
        "1234/7393",
        "left",
        "box 0.1234",
        "obj 0.0123",
        "cls 0.0456",
        "AP 0.612",
        "img/s",
    ):
        assert part in shown
    assert "…" not in shown and len(shown.strip().splitlines()) == 2


def phases_of(name: str) -> ByEpoch[Phase]:
    """One phase for the whole of a run of 300 epochs."""
    return ByEpoch.always(Phase(name, 0, 300, AugmentConfig(), LossConfig(), ScheduleConfig()), 300)


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 75, 3725)] == ["0s", "59s", "1m 15s", "1h 02m"]
