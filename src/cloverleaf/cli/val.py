"""`cloverleaf val`: judge weights on a dataset."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cloverleaf.predict.evaluate import EvaluationResult

_TITLES = {
    "AP": "IoU 0.50:0.95", "AP50": "IoU 0.50", "AP75": "IoU 0.75", "APs": "small, below 32x32",
    "APm": "medium, to 96x96", "APl": "large", "AR1": "recall, 1 detection", "AR10": "recall, 10 detections",
    "AR100": "recall, 100 detections", "ARs": "recall, small", "ARm": "recall, medium", "ARl": "recall, large",
}  # fmt: skip


def val(
    weights: Annotated[
        Path,
        typer.Option("--weights", "-w", help="Weights (.safetensors) or exported file (.onnx).", show_default=False),
    ],
    data: Annotated[Path, typer.Option("--data", "-d", help="data.yaml, COCO JSON or folder.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which part is judged: val, test or train.")] = "val",
    image_size: Annotated[
        int | None, typer.Option(help="Long side of the network input; default: as trained.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.", min=1)] = 16,
    conf: Annotated[
        float | None, typer.Option(help="Smallest score that counts [0.001].", min=0, max=1, show_default=False)
    ] = None,
    iou: Annotated[float | None, typer.Option(help="NMS threshold [0.65].", min=0, max=1, show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; default: a new runs/val.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON instead of tables.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 or fp16; the published numbers are full precision.")
    ] = "fp32",
    workers: Annotated[int, typer.Option(help="Loader processes; -1 chooses.", min=-1)] = -1,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Fold the model first: same result, faster.")] = True,
) -> None:
    """Judge weights by the COCO metrics on one split of a dataset.

    Writes metrics.json, predictions.json (COCO results) and plots into the output folder.

    Examples:

        cloverleaf val --weights runs/train/weights/best.safetensors --data data.yaml

        cloverleaf val -w best.safetensors -d coco/ --split test --image-size 640 --json
    """
    from cloverleaf.errors import ConfigError
    from cloverleaf.predict.engine import open_engine
    from cloverleaf.predict.evaluate import evaluate
    from cloverleaf.predict.evaluation_files import write_evaluation
    from cloverleaf.predict.results import make_folder, new_folder
    from cloverleaf.predict.selection import evaluation_config

    if precision not in ("fp32", "bf16", "fp16"):
        raise ConfigError(f"no precision {precision!r}", "", "use fp32, bf16 or fp16")
    if conf == 1 or iou == 0:
        raise ConfigError("--conf or --iou is out of range", "wanted conf < 1 and iou > 0", "leave them out")
    engine = open_engine(weights, device=device, precision=precision, fuse=fuse)  # type: ignore[arg-type]
    config = evaluation_config(engine.info, confidence=conf, iou=iou)
    if engine.info.suppression is not None:
        typer.echo(
            f"note: {weights} suppresses itself, one class per box, and is judged at its own thresholds (confidence "
            f"{config.confidence:g}, iou {config.iou:g}); the published protocol wants a file without NMS",
            err=True,
        )
    if engine.info.fixed:
        side = engine.info.image_size
        typer.echo(f"note: {weights} takes {side} x {side} only, so every image is padded to that square", err=True)
    folder = make_folder(output) if output is not None else None  # before the work, which may take long
    result = evaluate(engine, data, split, image_size=image_size, batch_size=batch_size, config=config, workers=workers)
    if ignored := result.ignored_classes:
        judged, known = len(result.metrics.per_class), len(result.metrics.per_class) + len(ignored)
        shown = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
        typer.echo(
            f"note: the weights know {known} classes, the dataset {judged} of them; what they find of the other "
            f"{len(ignored)} is dropped ({shown})",
            err=True,
        )
    folder = folder or new_folder(Path("runs/val"))
    write_evaluation(result, folder)
    if json:
        typer.echo(jsonlib.dumps(result.to_json(), allow_nan=False))
    else:
        _print_tables(result, folder)


def _print_tables(result: EvaluationResult, folder: Path) -> None:
    """The twelve numbers, the classes, the best confidence and the speed."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    metrics, speed = result.metrics, result.speed
    numbers = Table(title=f"{result.split}: {metrics.images} images, {metrics.objects} objects", title_justify="left")
    for heading, justify in (("metric", "left"), ("", "left"), ("value", "right")):
        numbers.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, value in metrics.values.items():
        numbers.add_row(name, _TITLES[name], _number(value), end_section=name in ("APl", "AR100"))
    console.print(numbers)

    classes = Table(title=f"classes (P, R, F1 at confidence {_number(metrics.confidence)})", title_justify="left")
    classes.add_column("class")
    for heading in ("objects", "AP", "AP50", "P", "R", "F1"):
        classes.add_column(heading, justify="right")
    for row in metrics.per_class:
        shown = (row.ap, row.ap50, row.precision, row.recall, row.f1)
        classes.add_row(row.name, str(row.objects), *map(_number, shown))
    classes.add_section()
    mean = (metrics["AP"], metrics["AP50"], metrics.precision, metrics.recall, metrics.f1)
    classes.add_row("mean", str(metrics.objects), *map(_number, mean), style="bold")
    console.print(classes)
    console.print(
        f"ms per image: load {speed.load:.1f}, pre-process {speed.preprocess:.1f}, "
        f"inference {speed.inference:.1f}, post-process {speed.postprocess:.1f}",
        soft_wrap=True,
    )
    console.print(f"results in {folder}", soft_wrap=True)


def _number(value: float) -> str:
    """Three decimals, a dash where undefined."""
    return "-" if value != value else f"{value:.3f}"
