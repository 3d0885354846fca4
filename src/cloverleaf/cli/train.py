"""`cloverleaf train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def train(
    model: Annotated[
        str | None, typer.Option(help="Catalog name or BACKBONE+NECK+HEAD; default: the recipe's.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="detect, instance (masks), semantic (pixels), classify (images) or multi (boxes, image tags and "
            "embeddings); default: as the model."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="data.yaml, COCO JSON or folder.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training split; phases of the recipe scale with it.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="Side of the network input in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per iteration over all processes.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default: a new runs/train.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output exactly where it stopped.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="Packaged recipe, such as small or yolov7-tiny; default: chosen by the size of the data."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="config.yaml of a run to repeat.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order and augmentation.")] = None,
    workers: Annotated[int | None, typer.Option(min=-1, help="Loader processes; -1 chooses.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="Repeat bit for bit on the same machine.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from these Cloverleaf weights, with their model unless --model is given.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Learn from the model of these Cloverleaf weights, too (distillation).")
    ] = None,
    backbone_weights: Annotated[
        Path | None, typer.Option(help="Start the backbone from a file of cloverleaf pretrain, or of any detector.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any value of the recipe, named as in config.yaml; repeat for several."
        ),
    ] = None,
) -> None:
    """Train a detector; leaves a run folder with weights, metrics, pictures and report.html.

    What is not given comes from the recipe; the full configuration is written to config.yaml in the run folder.

    Examples:

        cloverleaf train --model yolov7-tiny --data data.yaml --epochs 50

        cloverleaf train --data coco/ --recipe yolov7-tiny --set optimizer.lr=0.02 --set augment.mixup=0.1

        cloverleaf train --data data.yaml --weights yolov7.safetensors

        cloverleaf train --model gold-yolo-n --data data.yaml --teacher gold-yolo-s.safetensors

        cloverleaf train --model gold-yolo-n --data data.yaml --backbone-weights backbone.safetensors

        cloverleaf train --task instance --data coco/

        cloverleaf train --task classify --data folder-with-train-CLASS-and-val-CLASS/

        cloverleaf train --task multi --model yolov7-tiny --data data/shapes

        cloverleaf train --resume --output runs/train

        torchrun --nproc-per-node 2 -m cloverleaf train --data data.yaml --output runs/two
    """
    from cloverleaf.recipes.api import train as run
    from cloverleaf.training.config_io import merge, nest, parse_assignments

    named = {
        "seed": seed, "data.workers": workers, "runtime.device": device, "runtime.precision": precision,
        "runtime.deterministic": deterministic,
        "model.backbone_weights": str(backbone_weights) if backbone_weights else None,
    }  # fmt: skip
    options = nest({key: value for key, value in named.items() if value is not None})
    run(
        model, data, task=task, epochs=epochs, image_size=image_size, batch_size=batch_size, output=output,
        weights=weights, teacher=teacher, recipe=recipe, config=config, resume=resume,
        overrides=merge(options, parse_assignments(set_ or [])), command=shlex.join(["cloverleaf", *sys.argv[1:]]),
    )  # fmt: skip
