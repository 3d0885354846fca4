"""The report of a pre-training run: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloverleaf import atomic
from cloverleaf.reports.report import duration, embed, line
from cloverleaf.reports.tables import number, section

_PICTURES = (
    (
        "reconstructions.png",
        "Reconstructions",
        "Each triple: the image, the patches that the network saw, and these together with what it drew of the others. "
        "Drawn patches are given the mean and contrast of the true ones, which the loss leaves open.",
        False,
    ),
    (
        "training.png",
        "Loss on hidden patches",
        "Squared error on patches normalised to mean 0 and deviation 1; drawing that mean everywhere costs 1.",
        True,
    ),
)
_FACTS = (
    ("recipe", "Recipe"), ("recipe_reason", "Why this recipe"), ("images", "Images"),
    ("unreadable_images", "Images left out"), ("visible_patches", "Visible patches of each image"),
    ("device", "Device"), ("processor", "Processor"), ("cpus", "CPUs"), ("precision", "Precision"),
    ("cloverleaf", "Cloverleaf"), ("torch", "PyTorch"),
)  # fmt: skip


def write_pretraining_report(run_dir: Path) -> Path:
    """Write ``report.html`` from ``metrics.json``, ``config.yaml`` and ``pictures/`` of a run folder."""
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    config_text = (run_dir / "config.yaml").read_text(encoding="utf-8")
    config, made = yaml.safe_load(config_text), section(metrics, "run")
    environment = Environment(
        loader=PackageLoader("cloverleaf.reports", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template("pretraining.html.j2").render(
        title=metrics["backbone"],
        run_name=run_dir.resolve().name,
        summary=f"Pre-trained on {made['images']:,} images of {config['data']['source']} for {metrics['epochs']} "
        f"epochs in {duration(made['training_seconds'])}.",
        tiles=[
            ("Loss", number(metrics["loss"]), "last epoch"),
            ("At first", number(metrics["first_loss"]), "first epoch"),
            ("Hidden", f"{config['mask']['ratio']:.0%}", "of the patches"),
            ("Image size", str(config["data"]["image_size"]), "px"),
        ],
        pictures=_pictures(run_dir / "pictures"),
        next_commands=_next_commands(run_dir),
        command=made.get("command"),
        facts=[(label, str(made[key])) for key, label in _FACTS if made.get(key) not in (None, "")],
        config_text=config_text,
    )
    path = run_dir / "report.html"
    atomic.write_text(path, html)
    return path


def _pictures(folder: Path) -> list[dict[str, Any]]:
    pictures = []
    for name, title, caption, plot in _PICTURES:
        uri = embed(folder / name, photo=not plot, faults=[]) if (folder / name).is_file() else None
        if uri is not None:
            pictures.append({"uri": uri, "title": title, "caption": caption, "plot": plot})
    return pictures


def _next_commands(run_dir: Path) -> list[tuple[str, str]]:
    weights = run_dir / "weights" / "backbone.safetensors"
    train = ["train", "--model", "MODEL_WITH_THIS_BACKBONE", "--data", "DATA", "--backbone-weights", weights]
    again = ["pretrain", "--config", run_dir / "config.yaml", "--output", f"{run_dir}-again"]
    return [
        ("Train a detector from it", line(train)),
        ("Continue after an interruption", line(["pretrain", "--output", run_dir, "--resume"])),
        ("Repeat the run", line(again)),
    ]
