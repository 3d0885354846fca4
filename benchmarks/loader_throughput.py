"""How many augmented samples per second does one core make, with and without a cache, and how do workers scale?

Per-core numbers are CPU time of one process with OpenCV on one thread; loader numbers are wall time of whole epochs
with warm, persistent workers. Without ``--data``, JPEGs of 640 x 480 pixels with 14 boxes each are made first.

    python benchmarks/loader_throughput.py --data DATA --image-size 320 --output loader_throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import build_train_loader
from cloverleaf.data.source import open_index

POLICIES = {
    "tiny recipe (20 % mosaic-9, 5 % mixup)": AugmentConfig(),
    "mosaic-4 + perspective + HSV + flip": AugmentConfig(mosaic9=0.0, mixup=0.0, paste_in=0.0),
    "no mosaic": AugmentConfig(mosaic=0.0, mixup=0.0, paste_in=0.0),
}


def synthesise(folder: Path, images: int) -> Path:
    """A COCO dataset of photograph-like JPEGs."""
    rng = np.random.default_rng(0)
    rows, annotations = [], []
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    for i in range(images):
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        noise = rng.integers(0, 24, (480, 640, 3), dtype=np.uint8)
        pixels = cv2.add(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), noise)
        cv2.imwrite(str(folder / "images" / f"{i:04}.jpg"), pixels)
        rows.append({"id": i, "file_name": f"{i:04}.jpg", "height": 480, "width": 640})
        for x, y, w, h in rng.uniform([0, 0, 20, 20], [500, 340, 140, 140], (14, 4)).tolist():
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": 1, **box})
    content = {"images": rows, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    return folder


def per_core(index: DetectionIndex, data: DataConfig, augment: AugmentConfig, epochs: int) -> float:
    """Samples per second of CPU time, collation included."""
    loader = build_train_loader(index, replace(data, workers=0), augment, epochs=epochs, seed=0)
    samples = 0
    start = time.process_time()
    for epoch in range(epochs):
        loader.batch_sampler.sampler.set_epoch(epoch)
        samples += sum(len(batch) for batch in loader)
    return samples / (time.process_time() - start)


def with_workers(index: DetectionIndex, data: DataConfig, augment: AugmentConfig, epochs: int) -> float:
    """Samples per second of wall time after a first epoch that starts the workers."""
    loader = build_train_loader(index, data, augment, epochs=epochs + 1, seed=0)
    samples, start = 0, 0.0
    for epoch in range(epochs + 1):
        if epoch == 1:
            samples, start = 0, time.perf_counter()
        loader.batch_sampler.sampler.set_epoch(epoch)
        samples += sum(len(batch) for batch in loader)
    return samples / (time.perf_counter() - start)


def measure(index: DetectionIndex, image_size: int, workers: int, epochs: int) -> dict[str, dict[str, float]]:
    """Samples per second by cache and policy."""
    results = {}
    for cache in ("none", "ram"):
        data = DataConfig(image_size=image_size, batch_size=16, workers=workers, cache=cache)
        row = {f"per core, {name}": per_core(index, data, augment, epochs) for name, augment in POLICIES.items()}
        row[f"{workers} workers, wall, tiny recipe"] = with_workers(index, data, AugmentConfig(), epochs)
        results[cache] = row
        for name, value in row.items():
            print(f"cache {cache:5} {name:50} {value:8.0f} samples/s")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a dataset; synthetic JPEGs when left out")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        index = open_index(options.data or synthesise(Path(folder), 200), "train", cache_dir=Path(folder) / "index")
        results = measure(index, options.image_size, options.workers, options.epochs)
    ratio = results["ram"]["per core, " + next(iter(POLICIES))] / results["none"]["per core, " + next(iter(POLICIES))]
    print(f"the RAM cache makes samples {ratio:.2f} times as fast")
    environment = {
        "cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
        "opencv": cv2.__version__, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    if options.output:
        record = {"image_size": options.image_size, "samples_per_second": results, "environment": environment}
        options.output.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
