"""Does the average of two models that were trained on two halves of the data beat either, and on what does it depend?

Trains small detectors: a common start on all images and, from it, one model on each half; and, for comparison, models
on the halves that share only their random initial weights, or not even those. Judges each and their average, with the
BatchNorm statistics that they have and with recomputed ones: over letterboxed images, and over images augmented as in
training. Single models are recomputed too, to tell the effect of the average from that of the statistics.

    python benchmarks/merge_halves.py --data coco/ --output merge_halves.json
    python benchmarks/merge_halves.py --data coco/ --strong
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import cloverleaf
from cloverleaf.data.config import DataConfig
from cloverleaf.data.source import open_index
from cloverleaf.predict.evaluate import evaluate_model
from cloverleaf.recipes.catalog import get_recipe
from cloverleaf.training.recalibrate import recalibrate
from cloverleaf.weights import load, merge


def write_parts(source: str, folder: Path) -> dict[str, Path]:
    """Datasets `all`, `a` and `b` (even and odd images for training) with one validation split."""
    coco = {split: open_index(source, split).to_coco() for split in ("train", "val")}
    for name, first, step in (("all", 0, 1), ("a", 0, 2), ("b", 1, 2)):
        images = coco["train"]["images"][first::step]
        kept = {image["id"] for image in images}
        objects = [item for item in coco["train"]["annotations"] if item["image_id"] in kept]
        (folder / name / "annotations").mkdir(parents=True)
        for split, content in (("train", {"images": images, "annotations": objects}), ("val", {})):
            text = json.dumps({**coco[split], **content})
            (folder / name / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")
    return {name: folder / name for name in ("all", "a", "b")}


class Study:
    """Trains, merges and judges with one set of options, and keeps the rows of the table."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.parts = write_parts(arguments.data, folder / "data")
        self.train, self.val = open_index(self.parts["all"], "train"), open_index(self.parts["all"], "val")
        self.settings = DataConfig(image_size=arguments.image_size, batch_size=16, workers=0)
        self.rows: list[dict[str, Any]] = []

    def fit(self, name: str, part: str, epochs: int, *, seed: int = 0, start: Path | None = None, **swa: Any) -> Path:
        """Weights of the last epoch of a training on ``part``."""
        width = {"width": self.arguments.width}
        result = cloverleaf.train(
            "yolov7-tiny", self.parts[part], epochs=epochs, image_size=self.arguments.image_size, batch_size=16,
            recipe="small", output=self.folder / name,
            overrides={
                "seed": seed, "auto_anchor": False, "evaluation": {"interval": epochs}, "swa": swa,
                "augment": self.augment(epochs), "assigner_warmup": 0.4 if start is None else 0.0,
                "model": {"backbone": width, "neck": width, "head": width, "weights": start and str(start)},
                "runtime": {"device": "cpu", "precision": "fp32", "threads": torch.get_num_threads()},
                "data": {"workers": 0},
            },
        )  # fmt: skip
        return result.last_weights

    def augment(self, epochs: int) -> dict[str, Any]:
        """What differs from the recipe: a mosaic closed for the last quarter, or everything strong to the end."""
        strong = {"mosaic": 1.0, "close_mosaic": 0, "scale": 0.5, "hsv_s": 0.7, "hsv_v": 0.4}
        return strong if self.arguments.strong else {"close_mosaic": max(1, epochs // 4)}

    def judge(self, name: str, path: Path, *others: Path) -> None:
        """Add a row for a model, or for the average with ``others``: with its statistics, and with recomputed ones."""
        augment = replace(get_recipe("small").augment, **self.augment(self.arguments.epochs))
        found: dict[str, float] = {}
        for how in ("as they are", "letterboxed", "augmented"):
            model = merge([path, *others]) if others else load(path)
            if how != "as they are":
                images = augment if how == "augmented" else None
                recalibrate(model, self.train, self.settings, augment=images, images=len(self.train))
            metrics = evaluate_model(model.fused(), self.val, data=self.settings, device="cpu").metrics
            found[how] = metrics["AP"]
        self.rows.append({"weights": name, **found})
        print(f"{name:<36}" + "".join(f"  {how} {ap:.3f}" for how, ap in found.items()), flush=True)

    def judge_pair(self, title: str, first: Path, second: Path) -> None:
        """Both models and their average."""
        self.judge(f"{title}: half A", first)
        self.judge(f"{title}: half B", second)
        self.judge(f"{title}: average", first, second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="dataset with the splits train and val")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--start-epochs", type=int, default=30, help="on all images, and of the models without start")
    parser.add_argument("--epochs", type=int, default=10, help="on each half, from the start")
    parser.add_argument("--strong", action="store_true", help="mosaic always and to the end, stronger zoom and colours")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    with tempfile.TemporaryDirectory() as temporary:
        study = Study(arguments, Path(temporary))
        start = study.fit("start", "all", arguments.start_epochs, enabled=True)
        study.judge("start (EMA)", start)
        study.judge("start (SWA)", start.with_name("swa.safetensors"))
        more = study.fit("more", "all", arguments.epochs // 2, start=start)  # as many steps as on a half
        study.judge("more of all images", more)
        pair = [study.fit(f"from-start-{part}", part, arguments.epochs, start=start) for part in "ab"]
        study.judge_pair("one trained start", *pair)
        alone = [study.fit(f"alone-{part}", part, arguments.start_epochs) for part in "ab"]
        study.judge_pair("one random start", *alone)
        other = study.fit("alone-other", "b", arguments.start_epochs, seed=1)
        study.judge_pair("two random starts", alone[0], other)
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in spent)
    print(f"{seconds:.0f} s of CPU time")
    if arguments.output:
        facts = {**vars(arguments), "output": None, "cpu_seconds": round(seconds), "machine": platform.machine()}
        facts |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        arguments.output.write_text(json.dumps({"environment": facts, "rows": study.rows}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
