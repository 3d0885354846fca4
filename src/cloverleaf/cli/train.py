"""`cloverleaf train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    model: Annotated[
        str | None, typer.Option(help="catalog name or BACKBONE+NECK+HEAD (default: the recipe's)")
    ] = None,
    data: Annotated[str | None, typer.Option(help="data.yaml, COCO JSON or folder")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over the training split")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="side of the network input in pixels")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="images per iteration over all processes")] = None,
    output: Annotated[Path | None, typer.Option(help="run folder (default: runs/train, numbered)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --output exactly")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="packaged recipe (default: chosen by the size of the data)")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="config.yaml of a run to repeat")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of weights, order and augmentation")] = None,
    workers: Annotated[int | None, typer.Option(min=-1, help="loader processes, -1 chooses")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16, fp16")] = None,
    deterministic: Annotated[bool | None, typer.Option("--deterministic", help="bit-exact repetition")] = None,
    weights: Annotated[Path | None, typer.Option(help="start from these Cloverleaf weights")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="any value of the recipe")
    ] = None,
) -> None:
    """Train a detector; leaves a run folder with weights, metrics, pictures and report.html.

    Examples:

        cloverleaf train --model yolov7-tiny --data data.yaml --epochs 50

        cloverleaf train --data coco/ --recipe yolov7-tiny --set optimizer.lr=0.02 --set augment.mixup=0.1

        cloverleaf train --resume --output runs/train

        torchrun --nproc-per-node 2 -m cloverleaf train --data data.yaml --output runs/two
    """
    from cloverleaf.recipes.api import train as run
    from cloverleaf.training.config_io import merge, nest, parse_assignments

    named = {
        "seed": seed, "data.workers": workers, "runtime.device": device, "runtime.precision": precision,
        "runtime.deterministic": deterministic, "model.weights": None if weights is None else str(weights),
    }  # fmt: skip
    options = nest({key: value for key, value in named.items() if value is not None})
    run(
        model, data, epochs=epochs, image_size=image_size, batch_size=batch_size, output=output, recipe=recipe,
        config=config, resume=resume, overrides=merge(options, parse_assignments(set_ or [])),
        command=shlex.join(["cloverleaf", *sys.argv[1:]]),
    )  # fmt: skip
