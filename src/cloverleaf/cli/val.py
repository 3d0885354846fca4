"""`cloverleaf val`: judge weights on a dataset."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloverleaf.cli.options import Device, ImageSize

if TYPE_CHECKING:
    from cloverleaf.predict.engine import EngineInfo
    from cloverleaf.predict.evaluate import EvaluationResult


def val(
    weights: Annotated[
        Path,
        typer.Option("--weights", "-w", help="Weights (.safetensors) or exported file (.onnx).", show_default=False),
    ],
    data: Annotated[Path, typer.Option("--data", "-d", help="data.yaml, COCO JSON or folder.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which part is judged: val, test or train.")] = "val",
    image_size: ImageSize = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.", min=1)] = 16,
    conf: Annotated[
        float | None, typer.Option(help="Smallest score that counts [0.001].", min=0, max=1, show_default=False)
    ] = None,
    iou: Annotated[float | None, typer.Option(help="NMS threshold [0.65].", min=0, max=1, show_default=False)] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(help="Detections per image that are kept and count [300, of which AP counts 100].", min=1),
    ] = None,
    boxes_as_masks: Annotated[
        bool, typer.Option("--boxes-as-masks", help="Of objects without mask, where masks are judged.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; default: a new runs/val.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON instead of tables.")] = False,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 or fp16; the published numbers are full precision.")
    ] = "fp32",
    workers: Annotated[int, typer.Option(help="Loader processes; -1 chooses.", min=-1)] = -1,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Fold the model first: same result, faster.")] = True,
) -> None:
    """Judge weights on one split of a dataset, by what they were trained for.

    Detectors by the COCO metrics of boxes, instance segmentation by those of masks too, semantic segmentation by the
    IoU and accuracy of pixels, classifiers by top-1 and top-5 accuracy; models for several tasks also by the average
    precision of tags and the retrieval of individuals. Writes metrics.json, predictions.json (COCO
    results, or what was said of each image) and plots into the output folder.

    Examples:

        cloverleaf val --weights runs/train/weights/best.safetensors --data data.yaml

        cloverleaf val -w best.safetensors -d coco/ --split test --image-size 640 --json
    """
    from cloverleaf.cli.val_tables import print_result
    from cloverleaf.errors import ConfigError
    from cloverleaf.predict.engine import open_engine
    from cloverleaf.predict.evaluate import evaluate, object_names
    from cloverleaf.predict.evaluation_files import write_evaluation
    from cloverleaf.predict.results import make_folder, new_folder
    from cloverleaf.predict.selection import evaluation_config

    if precision not in ("fp32", "bf16", "fp16"):
        raise ConfigError(f"no precision {precision!r}", "", "use fp32, bf16 or fp16")
    if conf == 1 or iou == 0:
        raise ConfigError("--conf or --iou is out of range", "wanted conf < 1 and iou > 0", "leave them out")
    engine = open_engine(weights, device=device, precision=precision, fuse=fuse)  # type: ignore[arg-type]
    config = evaluation_config(engine.info, confidence=conf, iou=iou, max_detections=max_detections)
    if boxes_as_masks and engine.info.task in ("detect", "multi", "classify"):
        raise ConfigError("--boxes-as-masks has no effect", f"{weights} gives no masks", "leave it out")
    if engine.info.suppression is not None:
        typer.echo(
            f"note: {weights} suppresses itself, one class per box, and is judged at its own thresholds (confidence "
            f"{config.confidence:g}, iou {config.iou:g}); the published protocol wants a file without NMS",
            err=True,
        )
    if engine.info.fixed and engine.info.task != "classify":  # which sees squares anyway
        side = engine.info.image_size
        typer.echo(f"note: {weights} takes {side} x {side} only, so every image is padded to that square", err=True)
    folder = make_folder(output) if output is not None else None  # before the work, which may take long
    result = evaluate(
        engine, data, split, image_size=image_size, batch_size=batch_size, config=config, workers=workers,
        boxes_as_masks=boxes_as_masks,
    )  # fmt: skip
    if ignored := result.ignored_classes:
        known = len(object_names(engine.info) or ())
        judged = known - len(ignored)
        shown = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
        typer.echo(
            f"note: the weights know {known} classes, the dataset {judged} of them; what they find of the other "
            f"{len(ignored)} is dropped ({shown})",
            err=True,
        )
    _tell_unjudged(engine.info, result)
    folder = folder or new_folder(Path("runs/val"))
    write_evaluation(result, folder)
    if json:
        typer.echo(jsonlib.dumps(result.to_json(), allow_nan=False))
    else:
        print_result(result, folder)


def _tell_unjudged(info: EngineInfo, result: EvaluationResult) -> None:
    """What a model for several tasks gives and the dataset has no truth of."""
    from cloverleaf.evaluation.multi import MultiMetrics

    metrics = result.metrics
    if not isinstance(metrics, MultiMetrics):
        return
    for given, judged, kind in (
        (info.num_tags, metrics.tags, "tags"),
        (info.embedding_strides, metrics.retrieval, "identities"),
    ):
        if given and judged is None:
            typer.echo(f"note: the {result.split} split has no {kind}, so these are not judged", err=True)
