"""What does training reach of the speed of its own arithmetic, and is bfloat16 worth it here?

In one process, alternating, on the embedded shapes: epochs of `cloverleaf train`'s loader, augmentation, criterion,
optimiser and moving average; and the same forward, criterion, backward and step on one batch that is already in
memory. Prints the ratio (1.00: loading costs nothing), and the ratio of bfloat16 + channels_last to plain float32.

    python benchmarks/train_throughput.py --output train_throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cloverleaf.data.loader import build_train_loader
from cloverleaf.data.procedural import make_shapes
from cloverleaf.data.source import open_index
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.recipes.catalog import get_recipe
from cloverleaf.structures import Batch
from cloverleaf.training.ema import ModelEma
from cloverleaf.training.optim import build_optimizer
from cloverleaf.training.runtime import resolve_runtime


class Trainer:
    """One model with everything that a training step needs."""

    def __init__(self, classes: int, config: Any, *, bf16: bool, channels_last: bool) -> None:
        torch.manual_seed(0)
        model = create_model(config.model.name, num_classes=classes)
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.criterion = build_criterion(self.model, config.loss, image_size=config.data.image_size)
        self.optimizer = build_optimizer(self.model, config.optimizer, config.optimizer.weight_decay)
        self.ema = ModelEma(self.model)
        self.bf16, self.channels_last = bf16, channels_last
        self.model.train()

    def step(self, batch: Batch) -> None:
        images = batch.images.float().div_(255)
        if not self.channels_last:
            images = images.contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.criterion(self.model(images), batch.targets, batch.size_hw).total
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    recipe = get_recipe(options.recipe)
    data = replace(
        recipe.data, image_size=options.image_size, batch_size=options.batch_size, workers=options.workers,
        cache=options.cache,
    )  # fmt: skip
    config = replace(recipe, data=data)
    runtime = resolve_runtime(config.runtime)
    make_shapes(folder, images=options.images, size=options.image_size, splits={"train": options.images})
    index = open_index(folder, "train")
    loader = build_train_loader(index, data, config.augment, epochs=10_000, seed=0)
    chosen = Trainer(len(index.names), config, bf16=runtime.precision == "bf16", channels_last=True)
    plain = Trainer(len(index.names), config, bf16=False, channels_last=False)
    fixed = next(iter(loader))
    loaded, in_memory, plain_memory = [], [], []
    for round_number in range(options.rounds + 1):
        loader.batch_sampler.sampler.set_epoch(round_number + 1)
        loaded.append(_seconds(chosen, loader, lazily=True))
        in_memory.append(_seconds(chosen, [fixed] * len(loader)))
        plain_memory.append(_seconds(plain, [fixed] * max(len(loader) // 3, 1)))
    rates = {name: statistics.median(1 / value for value in values[1:]) for name, values in
             (("training", loaded), ("in_memory", in_memory), ("plain_fp32", plain_memory))}  # fmt: skip
    return {
        "training_over_in_memory": statistics.median(m / t for m, t in zip(in_memory[1:], loaded[1:], strict=True)),
        "chosen_over_plain_fp32": statistics.median(
            p / m for p, m in zip(plain_memory[1:], in_memory[1:], strict=True)
        ),
        "chosen_precision": runtime.precision,
        "images_per_second": {name: round(rate, 2) for name, rate in rates.items()},
    }


def _seconds(trainer: Trainer, batches: Any, lazily: bool = False) -> float:
    """Seconds per image; the first batch of a loader is waited for before the clock starts (it fills the pipeline)."""
    iterator = iter(batches)
    if lazily:
        trainer.step(next(iterator))
    images, start = 0, time.perf_counter()
    for batch in iterator:
        trainer.step(batch)
        images += len(batch)
    return (time.perf_counter() - start) / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default="ram", choices=["none", "ram", "disk"])
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder) / "shapes")
    result["environment"] = {
        "torch": torch.__version__, "threads": torch.get_num_threads(), "cpus": os.cpu_count(),
        "machine": platform.machine(), "python": platform.python_version(),
    }  # fmt: skip
    result["options"] = {key: str(value) for key, value in vars(options).items()}
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
