"""What a checkpoint carries besides weights: random generators, and that a run which ended early has ended."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cloverleaf as cl
from cloverleaf.data.procedural import make_shapes
from cloverleaf.training import fit
from cloverleaf.training.checkpoint import random_state, restore_random_state


def test_random_generators_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three, and the GPU of this process only: asking the others would set up every GPU in every process."""
    gpu: list[torch.Tensor] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.arange(4, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", gpu.append)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", pytest.fail)
    state = random_state()

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    first = draw()
    assert draw() != first
    restore_random_state(state)
    assert draw() == first
    assert [value.tolist() for value in gpu] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("recipe", "done"), [("small", 3), ("small-phases", 8)])
def test_patience_ends_a_run_for_good(recipe: str, done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever found, so the first epoch stays the best; resuming adds no epoch to the run that stopped.

    Phases that are still to come are not given up: patience counts from the start of the last one, here after epoch 6.
    """
    make_shapes(tmp_path / "shapes", seed=3, images=6, size=64, splits={"train": 4, "val": 2}, workers=0)
    rows: list[int] = []
    monkeypatch.setattr(fit, "finish", lambda config, train, val, record, *_, **__: rows.append(len(record.rows)))
    options = [
        "patience=2", "evaluation.confidence=0.999", "model.backbone.width=0.125", "model.neck.width=0.125",
        "data.workers=0", "data.cache=none", "runtime.device=cpu", "runtime.precision=fp32",
    ]  # fmt: skip
    if recipe == "small-phases":
        options += ["phases.calm.until=3", "phases.strong.until=6"]
    run = tmp_path / "run"
    start: Any = {"data": tmp_path / "shapes", "epochs": 10, "image_size": 64, "batch_size": 4, "recipe": recipe}
    cl.train(**start, output=run, overrides=options)
    cl.train(output=run, resume=True)
    assert rows == [done, done]
