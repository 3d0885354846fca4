"""`cloverleaf demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for the dataset and the run; numbered when it is in use.")
    ] = Path("runs/demo"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images; default: 15.")] = None,
    images: Annotated[int, typer.Option(min=30, help="Scenes to draw.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes and of the training.")] = 0,
) -> None:
    """Draw a dataset, train YOLOv7-tiny on it, judge it and write a report: ten minutes on two CPU cores.

    Without network and without data of your own; report.html in the run folder shows everything.

    Examples:

        cloverleaf demo

        cloverleaf demo --output /tmp/demo --epochs 3
    """
    import shlex
    import sys

    from rich.console import Console

    from cloverleaf.data.procedural import make_shapes
    from cloverleaf.data.source import open_index
    from cloverleaf.predict.evaluate import evaluate
    from cloverleaf.predict.job import SaveOptions, describe, run_job
    from cloverleaf.predict.predictor import Predictor
    from cloverleaf.predict.results import ResultFolder, make_folder
    from cloverleaf.predict.sources import find_sources
    from cloverleaf.recipes.api import train
    from cloverleaf.training.run_dir import next_free

    console = Console(soft_wrap=True)
    folder = next_free(output)
    console.print(f"[bold]1/4[/] drawing {images} scenes (seed {seed}) into {folder / 'shapes'}", highlight=False)
    dataset = make_shapes(folder / "shapes", seed=seed, images=images, size=320)
    console.print("[bold]2/4[/] training yolov7-tiny", highlight=False)
    result = train(
        "yolov7-tiny", dataset, epochs=epochs, recipe="demo", output=folder / "run", overrides={"seed": seed},
        command=shlex.join(["cloverleaf", *sys.argv[1:]]),
    )  # fmt: skip
    console.print("[bold]3/4[/] judging on the test split, which training never saw", highlight=False)
    judged = evaluate(result.best_weights, dataset, "test")
    shown = {"AP": "AP", "AP50": "AP50", "APs": "small", "APm": "medium", "APl": "large"}
    numbers = ((label, judged.metrics[name]) for name, label in shown.items())
    text = ", ".join(f"{label} {value:.3f}" for label, value in numbers if value == value)  # NaN: no such objects
    console.print(f"test {text}", highlight=False)
    console.print(f"[bold]4/4[/] detecting in test images, drawn into {folder / 'predictions'}", highlight=False)
    test = open_index(dataset, "test")
    found = find_sources([test.image_path(i) for i in range(min(len(test), 12))])
    pictures = ResultFolder(make_folder(folder / "predictions"), found.images)
    summary = run_job(Predictor(result.best_weights), found, pictures, SaveOptions(), lambda line: None)
    console.print(f"{summary.images} images: {describe(summary.counts)}", highlight=False)
    console.print(
        f"\nreport    {result.report}\nweights   {result.best_weights}\n"
        f"next      cloverleaf predict --weights {result.best_weights} YOUR_IMAGES\n"
        "          cloverleaf train --model yolov7-tiny --data YOUR_DATA",
        highlight=False,
    )
