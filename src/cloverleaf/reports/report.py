"""The report of a training run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import csv
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloverleaf import atomic
from cloverleaf.reports import tables
from cloverleaf.reports.tables import is_number, number, section

# How the pictures of a run are called, in the order of the report: stem (or its beginning), heading, caption.
_PICTURES: tuple[tuple[str, str, str], ...] = (
    (
        "predictions",
        "Predictions beside the ground truth",
        "Left what the labels say, right what the model found.",
    ),
    (
        "training",
        "Losses and metrics",
        "Every epoch; metrics are those of the averaged (EMA) weights.",
    ),
    ("precision_recall", "Precision and recall", "How precision falls as more of the objects are found."),
    (
        "confidence",
        "Where to set the confidence",
        "Precision, recall and F1 over the threshold; the dashed line has the best mean F1.",
    ),
    (
        "tags",
        "Tags of images",
        "Average precision of each tag, its F1 at probability 0.5, and the average precision of guesses.",
    ),
    (
        "retrieval",
        "Finding an individual again",
        "How often one of the most similar objects of other images is the same individual; lines are galleries in "
        "random order.",
    ),
    (
        "retrieved",
        "Queries and what was found most similar",
        "Queries evenly spread over the split; green frames are the same individual, red ones are not.",
    ),
    (
        "class_confusion",
        "What was taken for what",
        "Images of each true class (rows) that were called each class (columns).",
    ),
    (
        "pixel_confusion",
        "What pixels were taken for",
        "Percent of the pixels of each true class (rows) that were called each class (columns).",
    ),
    (
        "confusion",
        "What was taken for what",
        "Rows are true classes; the last column is objects that were missed, the last row detections where nothing is.",
    ),
    ("train_batch", "Training images", "As the network saw them, after augmentation."),
    ("labels", "The training labels", "Objects per class, where they are, and how large."),
)
_PLOTS = (
    *("training", "precision_recall", "confidence", "class_confusion", "pixel_confusion", "confusion", "labels"),
    *("tags", "retrieval"),
)
_PHOTO_LIMIT = 300_000  # photographs larger than so many bytes are embedded as JPEG
_FACTS = (
    ("recipe", "Recipe"),
    ("recipe_reason", "Why this recipe"),
    ("teacher", "Distilled from"),
    ("device", "Device"),
    ("processor", "Processor"),
    ("cpus", "CPUs"),
    ("precision", "Precision"),
    ("peak_memory_mib", "Peak memory, MiB"),
    ("cloverleaf", "Cloverleaf"),
    ("torch", "PyTorch"),
)


@dataclass(frozen=True, slots=True)
class _Picture:
    """One embedded picture: data URI, heading (empty for a repetition), caption, and whether it is a plot on white."""

    uri: str
    name: str
    title: str
    caption: str
    plot: bool


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` from what lies in a run folder.

    Reads ``metrics.json``, ``config.yaml``, ``results.csv``, ``report_context.json`` (more of what ``metrics.json`` has
    under ``run``: ``command``, ``recipe_reason``, ...) and ``pictures/``; whatever is missing or damaged is left out
    and, where damaged, named in the report. Pictures are embedded, styles are inline, nothing is fetched.

    Args:
        run_dir: the run folder.

    Returns:
        The path of the report.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    faults: list[str] = []
    metrics = _mapping(run_dir / "metrics.json", faults)
    config = _mapping(run_dir / "config.yaml", faults)
    run = {**section(metrics, "run"), **_mapping(run_dir / "report_context.json", faults)}
    rows = _rows(run_dir / "results.csv", faults)
    environment = Environment(
        loader=PackageLoader("cloverleaf.reports", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template("report.html.j2").render(
        title=section(config, "model").get("name") or "Training run",
        run_name=run_dir.resolve().name,
        summary=_summary(metrics, config, run, rows),
        tiles=tables.tiles(metrics),
        speed=tables.speed(metrics),
        phases=tables.phases(config),
        confidence=number(metrics["confidence"], 2) if is_number(metrics.get("confidence")) else None,
        classes=tables.classes(metrics),
        mistakes=tables.mistakes(metrics),
        tags=tables.tags(metrics),
        weights=tables.weights(metrics),
        command=run.get("command"),
        facts=_facts(metrics, run),
        pictures=_pictures(run_dir / "pictures", faults),
        config_text=_text(run_dir / "config.yaml", faults),
        next_commands=_next_commands(run_dir, config),
        faults=list(dict.fromkeys(faults)),
    )
    path = run_dir / "report.html"
    atomic.write_text(path, html)
    return path


def _text(path: Path, faults: list[str]) -> str:
    """The file's text; empty if there is no such file."""
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: {error}")
        return ""


def _mapping(path: Path, faults: list[str]) -> dict[str, Any]:
    """A JSON or YAML mapping; empty if the file is absent or damaged."""
    import yaml

    text = _text(path, faults)
    try:
        content = (json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)) if text else {}
    except (ValueError, yaml.YAMLError) as error:
        content = None
        faults.append(f"{path.name}: {error}")
    return content if isinstance(content, dict) else {}


def _rows(path: Path, faults: list[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(path, faults).splitlines()))


def duration(seconds: Any) -> str:
    """``75`` -> ``1 min 15 s``; empty where it is no number."""
    try:
        whole = round(float(seconds))
    except (TypeError, ValueError, OverflowError):
        return ""
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _summary(metrics: dict[str, Any], config: dict[str, Any], run: dict[str, Any], rows: list[Any]) -> str:
    """The run in one sentence."""
    parts = []
    if source := section(config, "data").get("source"):
        share = section(config, "data").get("fraction", 1)
        parts.append(f"trained on {source}" if share == 1 else f"trained on {share:.3g} of the images of {source}")
    if epochs := metrics.get("epochs") or len(rows):
        best = metrics.get("best_epoch")
        parts.append(f"for {epochs} epochs" + (f" (best: {best})" if best else ""))
    if took := duration(run.get("training_seconds") or run.get("wall_seconds")):
        parts.append(f"in {took}")
    if is_number(metrics.get("images")):
        objects = f" with {metrics['objects']:,} objects" if is_number(metrics.get("objects")) else ""
        parts.append(f"and judged on the {metrics.get('split', 'val')} split: {metrics['images']:,} images{objects}")
    text = " ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _facts(metrics: dict[str, Any], run: dict[str, Any]) -> list[tuple[str, str]]:
    """How the run was made, as label and value."""
    facts = [(label, str(run[key])) for key, label in _FACTS if run.get(key) not in (None, "")]
    if training := duration(run.get("training_seconds")):
        facts.insert(0, ("Training time", training))
    if wall := duration(run.get("wall_seconds")):
        facts.insert(1 if training else 0, ("Start to end", wall))
    if size := metrics.get("image_size"):
        facts.append(("Image size, px", str(size)))
    return facts


def _pictures(folder: Path, faults: list[str]) -> list[_Picture]:
    """The known pictures in the order of the report, then whatever else lies there."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    pictures = []
    for stem, title, caption in (*_PICTURES, ("", "More pictures", "")):
        known = [path for path in files if path.stem.startswith(stem)]
        files = [path for path in files if path not in known]
        first = True
        for path in known:
            if (uri := embed(path, photo=stem not in _PLOTS, faults=faults)) is not None:
                heading, text = (title, caption) if first else ("", "")
                pictures.append(_Picture(uri, path.stem.replace("_", " "), heading, text or path.stem, stem in _PLOTS))
                first = False
    return pictures


def embed(path: Path, *, photo: bool, faults: list[str]) -> str | None:
    """The picture as a data URI; large photographs are re-encoded as JPEG. None if it cannot be read."""
    import cv2
    import numpy as np

    data = path.read_bytes()
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        faults.append(f"pictures/{path.name} is not a picture")
        return None
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    if photo and len(data) > _PHOTO_LIMIT:
        kind, data = "jpeg", cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _next_commands(run_dir: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    """What to do next, as caption and command line."""
    best = run_dir / "weights" / "best.safetensors"
    source = section(config, "data").get("source")
    commands = [("Find objects in your images", line(["predict", "--weights", best, "IMAGES_OR_FOLDER"]))]
    if source:
        split = section(config, "data").get("val_split") or "val"
        commands.append(
            ("Judge again, on any split", line(["val", "--weights", best, "--data", source, "--split", split]))
        )
    commands += [
        ("Continue after an interruption", line(["train", "--output", run_dir, "--resume"])),
        ("Repeat the run", line(["train", "--config", run_dir / "config.yaml", "--output", f"{run_dir}-again"])),
    ]
    return commands


def line(words: Iterable[object]) -> str:
    """A command line of ours to copy."""
    return shlex.join(["cloverleaf", *map(str, words)])
