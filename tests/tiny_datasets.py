"""A dataset of a few images written by hand in each format, so that readers are tested independently."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("ant", "bee", "cat")
SIZES_HW = {"a": (40, 60), "b": (50, 30), "c": (64, 64)}
# image -> (label, x1, y1, x2, y2); c is background
OBJECTS = {"a": [(0, 3.25, 4.5, 20.0, 30.75), (2, 10.0, 5.0, 55.5, 39.0)], "b": [(1, 0.0, 0.0, 30.0, 50.0)], "c": []}
SPLITS = {"train": ("a", "c"), "val": ("b",)}


def write_images(folder: Path, stems: tuple[str, ...] = ("a", "b", "c")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        pixels = np.random.default_rng(ord(stem)).integers(0, 255, (*SIZES_HW[stem], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}.png")


def coco_content(split: str) -> dict:
    images, annotations = [], []
    for stem in SPLITS[split]:
        image_id = ord(stem)
        height, width = SIZES_HW[stem]
        images.append({"id": image_id, "file_name": f"{stem}.png", "width": width, "height": height})
        for label, x1, y1, x2, y2 in OBJECTS[stem]:
            annotations.append(
                {
                    "id": len(annotations) + image_id * 10,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path) -> Path:
    write_images(root / "images")
    (root / "annotations").mkdir()
    for split in SPLITS:
        (root / "annotations" / f"{split}.json").write_text(json.dumps(coco_content(split), indent=1))
    return root


def write_yolo(root: Path, names: str = "names: [ant, bee, cat]") -> Path:
    for split, stems in SPLITS.items():
        write_images(root / "images" / split, stems)
        (root / "labels" / split).mkdir(parents=True)
        for stem in stems:
            height, width = SIZES_HW[stem]
            rows = [
                f"{k} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} {(x2 - x1) / width!r} {(y2 - y1) / height!r}"
                for k, x1, y1, x2, y2 in OBJECTS[stem]
            ]
            if rows:  # a background image has no label file
                (root / "labels" / split / f"{stem}.txt").write_text("\n".join(rows) + "\n")
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\n{names}\n")
    return root


def write_voc(root: Path) -> Path:
    write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, stems in SPLITS.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            height, width = SIZES_HW[stem]
            items = "".join(
                f"  <object>\n    <name>{NAMES[k]}</name>\n    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n  </object>\n"
                for k, x1, y1, x2, y2 in OBJECTS[stem]
            )
            text = (
                f"<annotation>\n  <filename>{stem}.png</filename>\n  <size><width>{width}</width>"
                f"<height>{height}</height><depth>3</depth></size>\n{items}</annotation>\n"
            )
            (root / "Annotations" / f"{stem}.xml").write_text(text)
    return root


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}
