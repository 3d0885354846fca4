"""A tiny classification set: noisy squares of three colours, in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}


def write_class_folders(root: Path, *, train: int = 6, val: int = 3, side: int = 40) -> Path:
    """So many images of each class, of different sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                noise = rng.normal(0, 30, (side + 3 * k, side - 2 * k, 3))
                Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return root
