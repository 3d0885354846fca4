"""What `cloverleaf val` prints: the numbers of a task, its classes and the speed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from cloverleaf.evaluation.classification import ClassMetrics
    from cloverleaf.evaluation.coco import CocoMetrics
    from cloverleaf.evaluation.instances import InstanceMetrics
    from cloverleaf.evaluation.multi import MultiMetrics
    from cloverleaf.evaluation.semantic import SemanticMetrics
    from cloverleaf.predict.evaluate import EvaluationResult

_TITLES = {
    "AP": "IoU 0.50:0.95", "AP50": "IoU 0.50", "AP75": "IoU 0.75", "APs": "small, below 32x32",
    "APm": "medium, to 96x96", "APl": "large", "AR1": "recall, 1 detection", "AR10": "recall, 10 detections",
    "AR100": "recall, 100 detections", "ARs": "recall, small", "ARm": "recall, medium", "ARl": "recall, large",
}  # fmt: skip


def print_result(result: EvaluationResult, folder: Path) -> None:
    """Print the tables of an evaluation whose files are in ``folder``."""
    from rich.console import Console

    from cloverleaf.evaluation.classification import ClassMetrics
    from cloverleaf.evaluation.coco import CocoMetrics
    from cloverleaf.evaluation.instances import InstanceMetrics
    from cloverleaf.evaluation.multi import MultiMetrics

    console, speed = Console(), result.speed
    if isinstance(result.metrics, CocoMetrics):
        tables = _boxes(result.metrics, result.split, result.config.ap_detections)
    elif isinstance(result.metrics, MultiMetrics):
        tables = _several(result.metrics, result.split, result.config.ap_detections)
    elif isinstance(result.metrics, InstanceMetrics):
        tables = _instances(result.metrics, result.split)
    elif isinstance(result.metrics, ClassMetrics):
        tables = _classes(result.metrics, result.split)
    else:
        tables = _pixels(result.metrics, result.split)
    for table in tables:
        console.print(table)
    console.print(
        f"ms per image: load {speed.load:.1f}, pre-process {speed.preprocess:.1f}, "
        f"inference {speed.inference:.1f}, post-process {speed.postprocess:.1f}",
        soft_wrap=True,
    )
    console.print(f"results in {folder}", soft_wrap=True)


def _boxes(metrics: CocoMetrics, split: str, most: int) -> Iterable[Table]:
    """The twelve numbers, the classes and the best confidence."""
    numbers = _table(f"{split}: {metrics.images} images, {metrics.objects} objects", "metric", "", "value", texts=2)
    for name, value in metrics.values.items():
        numbers.add_row(name, _title(name, most), _number(value), end_section=name in ("APl", "AR100"))
    yield numbers
    title = f"classes (P, R, F1 at confidence {_number(metrics.confidence)})"
    classes = _table(title, "class", "objects", "AP", "AP50", "P", "R", "F1")
    for row in metrics.per_class:
        shown = (row.ap, row.ap50, row.precision, row.recall, row.f1)
        classes.add_row(row.name, str(row.objects), *map(_number, shown))
    classes.add_section()
    mean = (metrics["AP"], metrics["AP50"], metrics.precision, metrics.recall, metrics.f1)
    classes.add_row("mean", str(metrics.objects), *map(_number, mean), style="bold")
    yield classes


def _several(metrics: MultiMetrics, split: str, most: int) -> Iterable[Table]:
    """Boxes, then tags and retrieval as far as they were judged, beside what chance would give."""
    yield from _boxes(metrics.boxes, split, most)
    if (tags := metrics.tags) is not None:
        title = f"tags of {tags.images} images (P, R, F1 at probability {tags.threshold:g})"
        table = _table(title, "tag", "images", "AP", "P", "R", "F1")
        for row in zip(tags.names, tags.counts.tolist(), tags.ap, tags.precision, tags.recall, tags.f1, strict=True):
            table.add_row(row[0], str(row[1]), *(_number(float(value)) for value in row[2:]))
        table.add_section()
        table.add_row("mean", "", _number(metrics["tag_mAP"]), "", "", _number(metrics["tag_F1_macro"]), style="bold")
        table.add_row("all together", "", "", "", "", _number(metrics["tag_F1"]))
        table.add_row("chance", "", _number(tags.values["tag_chance"]), "", "", "", style="dim")
        yield table
    if (found := metrics.retrieval) is not None:
        title = (
            f"retrieval: {found.objects} objects, {found.individuals} individuals, "
            f"{found.without_match} of the objects in one image only"
        )
        table = _table(title, "individuals", "queries", *found.values)
        for name, part in (("all", found.all), ("seen in training", found.seen), ("never seen", found.unseen)):
            if part is not None:
                table.add_row(
                    name, str(part.queries), *map(_number, part.values.values()), style="bold" * (name == "all")
                )
                table.add_row("  chance", "", *map(_number, part.chance.values()), style="dim", end_section=True)
        yield table


def _instances(metrics: InstanceMetrics, split: str) -> Iterable[Table]:
    """The twelve numbers of masks and of boxes, and the classes."""
    boxes, most = metrics.boxes, metrics.max_detections
    title = f"{split}: {boxes.images} images, {boxes.objects} objects, at most {most} detections of an image and class"
    numbers = _table(title, "metric", "", "masks", "boxes", texts=2)
    for name, value in metrics.masks.items():
        shown = (_number(value), _number(boxes[name]))
        numbers.add_row(name, _title(name, most), *shown, end_section=name in ("APl", "AR100"))
    yield numbers
    classes = _table(
        f"classes (P, R, F1 of boxes at confidence {_number(boxes.confidence)})",
        "class", "objects", "mask AP", "mask AP50", "box AP", "P", "R", "F1",
    )  # fmt: skip
    for row, ap, ap50 in zip(boxes.per_class, metrics.mask_ap, metrics.mask_ap50, strict=True):
        values = (ap, ap50, row.ap, row.precision, row.recall, row.f1)
        classes.add_row(row.name, str(row.objects), *map(_number, values))
    classes.add_section()
    mean = (metrics.masks["AP"], metrics.masks["AP50"], boxes["AP"], boxes.precision, boxes.recall, boxes.f1)
    classes.add_row("mean", str(boxes.objects), *map(_number, mean), style="bold")
    yield classes


def _pixels(metrics: SemanticMetrics, split: str) -> Iterable[Table]:
    """IoU and accuracy of each class, and their means."""
    total = int(metrics.counts.sum())
    table = _table(f"{split}: {metrics.images} images, {total:,} pixels", "class", "pixels", "IoU", "accuracy")
    for name, count, iou, accuracy in zip(
        metrics.class_names, metrics.counts.sum(1).tolist(), metrics.iou, metrics.accuracy, strict=True
    ):
        table.add_row(name, f"{count:,}", _number(float(iou)), _number(float(accuracy)))
    table.add_section()
    table.add_row("mean", f"{total:,}", _number(metrics["mIoU"]), _number(metrics["mAcc"]), style="bold")
    table.add_row("all pixels", "", "", _number(metrics["pixel_accuracy"]))
    yield table


def _classes(metrics: ClassMetrics, split: str) -> Iterable[Table]:
    """Accuracy of each class and of all images."""
    table = _table(f"{split}: {metrics.images} images", "class", "images", "accuracy", "precision")
    for name, count, accuracy, precision in zip(
        metrics.class_names, metrics.counts.sum(1).tolist(), metrics.accuracy, metrics.precision, strict=True
    ):
        table.add_row(name, f"{count:,}", _number(float(accuracy)), _number(float(precision)))
    table.add_section()
    table.add_row("mean of the classes", "", _number(metrics["mean_accuracy"]), "", style="bold")
    table.add_row("all images (top-1)", f"{metrics.images:,}", _number(metrics["top1"]), "", style="bold")
    if metrics["top5"] == metrics["top5"]:
        table.add_row("among the likeliest five (top-5)", "", _number(metrics["top5"]), "")
    table.add_row("loss", "", _number(metrics["loss"]), "")
    yield table


def _table(title: str, *headings: str, texts: int = 1) -> Table:
    """An empty table whose first ``texts`` columns are text and whose others are numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if k < texts else "right")
    return table


def _title(name: str, most: int) -> str:
    """What a metric means; ``AR100`` is the recall at the most detections that count."""
    return f"recall, {most} detections" if name == "AR100" else _TITLES[name]


def _number(value: float) -> str:
    """Three decimals, a dash where undefined."""
    return "-" if value != value else f"{value:.3f}"
