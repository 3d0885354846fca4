"""Write the embedded dataset to a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cloverleaf.data.cpus import resolve_threads
from cloverleaf.data.procedural import marker
from cloverleaf.data.procedural.annotate import document, image_record, object_records
from cloverleaf.data.procedural.individuals import Individual, make_individuals
from cloverleaf.data.procedural.scene import make_scene
from cloverleaf.data.procedural.shapes import SHAPES
from cloverleaf.errors import ConfigError

MARKER = ".cloverleaf-shapes.json"
_OWN = ("images/[0-9][0-9][0-9][0-9][0-9][0-9].jpg", "annotations/*.json")
DEFAULT_SPLITS: Mapping[str, float] = {"train": 0.75, "val": 0.125, "test": 0.125}
_VERSION = 1  # raise it when the same parameters would draw different pictures
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What decides every byte of the dataset."""

    version: int
    seed: int
    images: int
    size: int
    splits: dict[str, int]

    @property
    def individuals_per_class(self) -> int:
        """As `individuals_per_class` says."""
        return individuals_per_class(self.images)


def individuals_per_class(images: int) -> int:
    """So many that each is seen about ten times or more: 20 in a set of 600 images, fewer in small ones."""
    return int(np.clip(images // 25, 2, 20))


def make_shapes(
    output: Path,
    *,
    seed: int = 0,
    images: int = 600,
    size: int = 320,
    splits: Mapping[str, float] | Mapping[str, int] = DEFAULT_SPLITS,
    workers: int = -1,
) -> Path:
    """Draw the embedded detection set: textured scenes with sixteen classes of shapes.

    The folder holds ``images/NNNNNN.jpg`` and one COCO file per split, ``annotations/<split>.json``. An annotation has
    the tight box, the area and the RLE of the object's visible pixels, its class, and its ``identity``: the individual
    (class, colours, pattern, mark) that is seen again in other images in another pose, size and light. Of every class
    the first 70 % of the individuals appear in all splits, the next 15 % in the first split only and the last 15 % in
    the other splits only, so that re-identification can be judged on individuals that were never trained on. Images
    carry ``tags`` (background, light, crowding, dominant colour), declared at the top level of each file.

    Every image has its own random stream, from ``seed`` and its number: the result does not depend on ``workers`` and
    is the same, bit for bit, wherever the same versions of NumPy and OpenCV run on the same kind of processor.

    Args:
        output: the folder; made if it is absent. If it already holds this dataset with the same parameters it is kept
            as it is; if it holds one with other parameters or an unfinished one, that is replaced.
        seed: any non-negative integer.
        images: number of images over all splits.
        size: side of the square images in pixels, at least 64. Objects are 6 to 200 pixels at 320.
        splits: share of the images (floats that sum to 1) or number of images (integers that sum to ``images``) of
            each split, in order; the first is taken as the training split.
        workers: threads; -1 uses every CPU that the process may use.

    Returns:
        ``output``.

    Raises:
        ConfigError: a value is out of range or the splits do not add up.
        DataError: ``output`` is a file, or holds something that this function did not make.
    """
    parameters = _Parameters(_VERSION, seed, images, size, _split_counts(splits, images))
    if seed < 0 or images < 1 or size < 64:
        raise ConfigError(
            f"cannot draw {images} images of {size} px with seed {seed}",
            "the seed must be at least 0, the number of images 1, the size 64",
            "change the values",
        )
    output = Path(output)
    if marker.holds(output, MARKER, asdict(parameters), _OWN):
        return output
    (output / "images").mkdir(parents=True, exist_ok=True)
    (output / "annotations").mkdir(exist_ok=True)
    marker.mark(output, MARKER, asdict(parameters), complete=False)
    first = 0
    for number, (split, count) in enumerate(parameters.splits.items()):
        _write_split(output, parameters, split, range(first, first + count), number == 0, workers)
        first += count
    marker.mark(output, MARKER, asdict(parameters), complete=True)
    return output


def _split_counts(splits: Mapping[str, float] | Mapping[str, int], images: int) -> dict[str, int]:
    """Images per split; rounding falls to the first split."""
    total = sum(splits.values())
    bad = [name for name, share in splits.items() if share < 0 or not name or not name.replace("-", "_").isidentifier()]
    if not bad and splits and all(isinstance(share, int) for share in splits.values()) and total == images:
        return {name: int(share) for name, share in splits.items()}
    if bad or not splits or abs(total - 1) > 1e-6:
        raise ConfigError(
            f"splits {dict(splits)} do not fit {images} images",
            f"shares must sum to 1 and counts to {images}, and a split's name must be a plain word",
            "for example {'train': 0.75, 'val': 0.125, 'test': 0.125}",
        )
    counts = {name: int(images * share + 1e-6) for name, share in splits.items()}
    counts[next(iter(counts))] += images - sum(counts.values())
    return counts


def _write_split(
    output: Path, parameters: _Parameters, split: str, numbers: range, training: bool, workers: int
) -> None:
    """Draw the images ``numbers`` and write the split's annotation file."""
    per_class = parameters.individuals_per_class
    people = _cast(make_individuals(parameters.seed, per_class), per_class, training)

    def draw(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rng = np.random.default_rng(np.random.SeedSequence([parameters.seed, 2, number]))
        scene = make_scene(rng, people, (parameters.size, parameters.size))
        name = f"{number + 1:06d}.jpg"
        encoded = cv2.imencode(".jpg", scene.image[:, :, ::-1], _JPEG)[1]
        (output / "images" / name).write_bytes(encoded.tobytes())
        return image_record(scene, number + 1, name), object_records(scene, number + 1)

    with ThreadPoolExecutor(resolve_threads(workers)) as pool:
        drawn = list(pool.map(draw, numbers))
    images = [image for image, _ in drawn]
    annotations = [record for _, records in drawn for record in records]
    content = document(images, annotations, asdict(parameters))
    text = json.dumps(content, separators=(",", ":"))
    (output / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")


def _cast(people: list[Individual], per_class: int, training: bool) -> list[Individual]:
    """The individuals that may appear in a split, as often as their chance is multiplied."""
    shared, trained = round(0.7 * per_class), round(0.85 * per_class)
    assert len(people) == per_class * len(SHAPES)

    def turns(person: Individual) -> int:
        number = person.identity % per_class
        if number < shared:
            return 1
        if training:
            return int(number < trained)
        return 3 * int(number >= trained)  # the other splits are small: each newcomer must be seen several times

    return [person for person in people for _ in range(turns(person))]
