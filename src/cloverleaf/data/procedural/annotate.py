"""Scenes as COCO annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.scene import TAGS, Scene
from cloverleaf.data.procedural.shapes import SHAPES


def run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """(H, W) bool -> COCO's uncompressed RLE: column-major run lengths that begin with a run of zeros (may be 0)."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def tight_box(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Smallest box (x, y, width, height), pixels, that holds every True of ``mask`` (which has at least one)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def image_record(scene: Scene, image_id: int, file_name: str) -> dict[str, Any]:
    """The COCO `images` entry, with the ids of the image's tags."""
    height, width = scene.image.shape[:2]
    tags = [TAGS.index(tag) + 1 for tag in scene.tags]
    return {"id": image_id, "file_name": file_name, "height": height, "width": width, "tags": tags}


def object_records(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """The COCO `annotations` entries of one image, without their ids."""
    return [
        {
            "image_id": image_id,
            "category_id": seen.individual.label + 1,
            "bbox": tight_box(seen.mask),
            "area": int(seen.mask.sum()),
            "iscrowd": 0,
            "identity": seen.individual.identity,
            "segmentation": run_lengths(seen.mask),
        }
        for seen in scene.objects
    ]


def document(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], parameters: dict[str, Any]
) -> dict[str, Any]:
    """A whole COCO file; annotation ids are numbered from 1."""
    return {
        "info": {"description": "Cloverleaf shapes: a drawn detection set", "parameters": parameters},
        "categories": [{"id": k + 1, "name": shape.name, "supercategory": "shape"} for k, shape in enumerate(SHAPES)],
        "tags": [{"id": k + 1, "name": name} for k, name in enumerate(TAGS)],
        "images": images,
        "annotations": [{"id": k + 1, **annotation} for k, annotation in enumerate(annotations)],
    }
