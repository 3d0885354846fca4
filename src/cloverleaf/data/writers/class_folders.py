"""Class folders for classification: every object cut out of its image, `SPLIT/CLASS/NAME_1.png`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cloverleaf.data.image_io import Pixels, read_image
from cloverleaf.data.records import Header, ImageRecord, ObjectRecord
from cloverleaf.data.writers.layout import Tally, is_finite
from cloverleaf.errors import ConfigError, ImageError

_FORBIDDEN = '/\\:*?"<>|\0'


class ClassFolderWriter:
    """Cuts objects out along their boxes, losslessly; crowd regions are left out.

    An image that is one object, as those of class folders are, is written whole.

    Args:
        output: where the splits go.
        header: the classes.
        tally: what was left out.

    Raises:
        ConfigError: two classes would have the same folder.
    """

    def __init__(self, output: Path, header: Header, tally: Tally) -> None:
        self._output, self._header, self._tally = output, header, tally
        self._used: dict[str, set[int]] = {}
        self._folders = [folder_name(name) for name in header.names]
        lowered = [name.lower() for name in self._folders]
        twice = sorted({name for name in lowered if lowered.count(name) > 1})
        if twice:
            raise ConfigError(
                f"several classes would have the folder {twice[0]!r}", "folders are named like classes",
                "rename one of the classes",
            )  # fmt: skip

    def image_folder(self, split: str) -> Path:
        """Where the class folders of a split are."""
        return self._output / split

    def add(self, split: str, record: ImageRecord, name: str, size_hw: tuple[int, int]) -> None:
        """Write the objects of an image."""
        used = self._used.setdefault(split, set())
        if not record.objects:
            return
        try:
            image = read_image(record.path)
        except ImageError:
            self._tally.lost["objects of images that cannot be read"] += len(record.objects)
            return
        for number, found in enumerate(record.objects, start=1):
            crop = _cut(image, found)
            if found.crowd:
                self._tally.lost["crowd regions"] += 1
            elif crop is None:
                self._tally.lost["boxes without size, not finite or outside the image"] += 1
            else:
                used.add(found.label)
                self._save(self._output / split / self._folders[found.label] / f"{Path(name).stem}_{number}.png", crop)

    def _save(self, path: Path, crop: Pixels) -> None:
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(path)

    def finish(self) -> None:
        """Say which classes have no folder in a split, which no classifier could be trained on."""
        for split, used in self._used.items():
            missing = [name for label, name in enumerate(self._header.names) if label not in used]
            if missing:
                named = f"classes of which split {split!r} has no object ({', '.join(missing)})"
                self._tally.lost[named] = len(missing)


def folder_name(name: str) -> str:
    """A class name without what file systems do not take."""
    return "".join("_" if letter in _FORBIDDEN else letter for letter in name).strip(". ") or "_"


def _cut(image: Pixels, found: ObjectRecord) -> Pixels | None:
    """The pixels that the box touches; None of a box that touches none."""
    if not is_finite(found):
        return None
    height, width = image.shape[:2]
    x1, y1, x2, y2 = found.box_xyxy
    left, top = max(math.floor(x1 + 1e-6), 0), max(math.floor(y1 + 1e-6), 0)
    right, bottom = min(math.ceil(x2 - 1e-6), width), min(math.ceil(y2 - 1e-6), height)
    if x2 <= x1 or y2 <= y1 or right <= left or bottom <= top:
        return None
    return np.ascontiguousarray(image[top:bottom, left:right])
