"""`cloverleaf pretrain`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="efficient-rep, csp-bep, elan, timm/NAME, ...")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", "-i", help="Folder, with all below it; or data.yaml or COCO JSON.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images.")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="Side of the network input in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step over all processes.")] = None,
    mask_ratio: Annotated[float | None, typer.Option(help="Share of the patches that are hidden.")] = None,
    patch_size: Annotated[
        int | None, typer.Option(help="Side of a patch: a multiple of the coarsest stride, which is the default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default: a new runs/pretrain.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output exactly where it stopped.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help="spark, as published, or small; default: chosen by the number of images.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="config.yaml of a run to repeat.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, order, crops and masks.")] = None,
    workers: Annotated[int | None, typer.Option(min=-1, help="Loader processes; -1 chooses.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="Repeat bit for bit on the same machine.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any value, named as in config.yaml; repeat for several."),
    ] = None,
) -> None:
    """Pre-train a backbone on images without labels: it sees some patches and draws the others.

    Leaves a run folder with weights/backbone.safetensors, results.csv, pictures of reconstructions and report.html.

    Examples:

        cloverleaf pretrain --backbone efficient-rep --images photos/

        cloverleaf pretrain -b efficient-rep --set backbone.width=0.5 -i data.yaml --epochs 400 -o runs/pre

        cloverleaf train --model gold-yolo-n --data data.yaml --backbone-weights runs/pre/weights/backbone.safetensors

        cloverleaf pretrain --resume --output runs/pre

        torchrun --nproc-per-node 2 -m cloverleaf pretrain -b timm/resnet18 -i photos/ --output runs/two
    """
    from cloverleaf.pretraining.api import pretrain as run
    from cloverleaf.training.config_io import merge, nest, parse_assignments

    named = {
        "seed": seed, "data.workers": workers, "runtime.device": device, "runtime.precision": precision,
        "runtime.deterministic": deterministic,
    }  # fmt: skip
    options = nest({key: value for key, value in named.items() if value is not None})
    run(
        backbone, images, epochs=epochs, image_size=image_size, batch_size=batch_size, mask_ratio=mask_ratio,
        patch_size=patch_size, output=output, recipe=recipe, config=config, resume=resume,
        overrides=merge(options, parse_assignments(set_ or [])), command=shlex.join(["cloverleaf", *sys.argv[1:]]),
    )  # fmt: skip
