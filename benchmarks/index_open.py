"""How long does it take to open a cached index of a million images, and what does each further process cost?

Builds the index from synthetic records through the same builder as real datasets, then opens it in fresh processes:
time of the call, and memory (resident, and its own) before opening, after opening and after reading many samples.

    python benchmarks/index_open.py --images 1000000 --output index_open.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np


def synthesise(images: int, per_image: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of an index as `IndexBuilder.arrays` would give them."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(per_image, images)
    objects = int(counts.sum())
    corners = rng.uniform(0, 400, (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 200, (objects, 2))], axis=1)
    paths = [f"images/{number // 1000:04d}/{number:09d}.jpg".encode() for number in range(images)]
    none = np.zeros(objects + 1, dtype=np.int64)
    return {
        "path_blob": np.frombuffer(b"".join(paths), dtype=np.uint8),
        "path_offsets": np.concatenate([[0], np.cumsum([len(path) for path in paths])]),
        "sizes_hw": np.tile([480, 640], (images, 1)),
        "image_ids": np.arange(1, images + 1),
        "object_offsets": np.concatenate([[0], np.cumsum(counts)]),
        "boxes_xyxy": boxes,
        "labels": rng.integers(0, 80, objects),
        "crowd": np.zeros(objects, dtype=np.bool_),
        "areas": (boxes[:, 2:] - boxes[:, :2]).prod(1),
        "identities": np.full(objects, -1),
        "annotation_ids": np.arange(1, objects + 1),
        "object_rings": none,
        "ring_offsets": np.zeros(1, dtype=np.int64),
        "points": np.zeros((0, 2)),
        "rle_offsets": none,
        "rle_blob": np.zeros(0, dtype=np.uint8),
        "tag_offsets": np.zeros(images + 1, dtype=np.int64),
        "tag_values": np.zeros(0, dtype=np.int32),
    }


def memory() -> dict[str, float]:
    """Resident memory of this process in MiB, and the part that is not pages of files (which processes share)."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("Rss", "Anonymous"):
            found[key.lower()] = int(value.split()[0]) / 1024
    return found


def worker(directory: str, reads: int, answers: multiprocessing.Queue) -> None:
    """Open the index as a loader process does, and read samples at random."""
    from cloverleaf.data.index import DetectionIndex

    before = memory()
    start = time.perf_counter()
    index = DetectionIndex(Path(directory))
    seconds = time.perf_counter() - start
    opened = memory()
    rng = np.random.default_rng(os.getpid())
    start = time.perf_counter()
    for i in rng.integers(0, len(index), reads).tolist():
        index.objects(i)
        index.image_path(i)
    per_read = (time.perf_counter() - start) / reads
    answers.put({"open_s": seconds, "read_us": per_read * 1e6, "before": before, "opened": opened, "read": memory()})


def from_source(images: int, folder: Path) -> dict[str, float]:
    """The whole of `open_index` on a COCO file of so many images: first (parse and build), then from the cache."""
    from cloverleaf.data.source import open_index

    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rows = [{"id": k + 1, "file_name": f"{k:09d}.jpg", "width": 640, "height": 480} for k in range(images)]
    boxes = [
        {
            "id": k + 1,
            "image_id": k // 5 + 1,
            "category_id": 1,
            "bbox": [k % 600, 5, 30, 40],
            "area": 1200,
            "iscrowd": 0,
        }
        for k in range(images * 5)
    ]
    for row in rows:
        (folder / "images" / row["file_name"]).touch()
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    del rows, boxes, content
    seconds = {}
    for name in ("build_s", "open_s"):
        start = time.perf_counter()
        open_index(folder, "train")
        seconds[name] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--objects-per-image", type=float, default=7.3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--source-images", type=int, default=0, help="also time open_index on a real COCO file")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    from cloverleaf.data.index_store import write_index

    with tempfile.TemporaryDirectory() as folder:
        arrays = synthesise(options.images, options.objects_per_image)
        objects = len(arrays["labels"])
        names = [f"class {k}" for k in range(80)]
        meta = {
            "names": names, "category_ids": list(range(1, 81)), "tag_names": [], "tag_ids": [], "split": "train",
            "format": "coco", "source": folder, "fingerprint": "0", "has_identities": False, "removed": {},
        }  # fmt: skip
        start = time.perf_counter()
        index = write_index(Path(folder) / "train-key-0", arrays, meta)
        written = time.perf_counter() - start
        size = sum(path.stat().st_size for path in index.directory.iterdir())
        del arrays
        context = multiprocessing.get_context("spawn")
        answers: multiprocessing.Queue = context.Queue()
        processes = [
            context.Process(target=worker, args=(str(index.directory), options.reads, answers))
            for _ in range(options.processes)
        ]
        for process in processes:
            process.start()
        results = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        source = from_source(options.source_images, Path(folder) / "coco") if options.source_images else None
    report = {
        "images": options.images,
        "objects": objects,
        "bytes_on_disk": size,
        "write_s": written,
        "processes": results,
        "open_index": None if source is None else {"images": options.source_images, **source},
        "environment": {"python": platform.python_version(), "numpy": np.__version__, "cpus": os.cpu_count()},
    }
    worst = max(result["open_s"] for result in results)
    private = max(result["read"]["anonymous"] - result["before"]["anonymous"] for result in results)
    print(f"{options.images:,} images, {objects:,} objects: {size / 2**20:.0f} MiB on disk, written in {written:.1f} s")
    print(f"opened in {worst * 1e3:.1f} ms (bar: 3 s); {max(r['read_us'] for r in results):.0f} us per image read")
    print(f"private memory per process after {options.reads:,} reads: {private:.1f} MiB (bar: 1 GiB)")
    if source is not None:
        count, build, again = options.source_images, source["build_s"], source["open_s"]
        print(f"open_index on {count:,} COCO images: {build:.1f} s to build, {again:.3f} s from the cache")
    if options.output:
        options.output.write_text(json.dumps(report, indent=1))
    if worst > 3 or private > 1024:
        raise SystemExit("too slow or too large")


if __name__ == "__main__":
    main()
