"""`cloverleaf data stats`: what is in a dataset, as numbers and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cloverleaf import atomic
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.source import list_splits, open_index

if TYPE_CHECKING:
    from rich.console import Console

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO: an object is small below, large from these areas in square pixels of the stored image."""
SIZES = ("small", "medium", "large")
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True, slots=True)
class SplitStats:
    """Numbers of one split."""

    images: int
    images_without_objects: int
    objects: int
    crowd: int
    per_class: dict[str, int]
    per_size: dict[str, int]
    per_image: dict[str, float]
    side_px: dict[str, float]
    aspect: dict[str, float]
    image_sizes: dict[str, int]
    tags: dict[str, int]


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Numbers of all splits, and the files that were written."""

    source: str
    names: tuple[str, ...]
    splits: dict[str, SplitStats]
    files: tuple[Path, ...]

    def print(self, console: Console) -> None:
        """Two tables with a column per split: the numbers, and the objects of each class."""
        from rich.table import Table

        console.print(self.source, style="bold", highlight=False, soft_wrap=True)
        splits = list(self.splits.values())
        table = Table("", *self.splits)
        for column in table.columns[1:]:
            column.justify = "right"
        table.add_row("images", *(f"{stats.images:,}" for stats in splits))
        table.add_row("images without objects", *(f"{stats.images_without_objects:,}" for stats in splits))
        table.add_row("objects", *(f"{stats.objects:,}" for stats in splits))
        table.add_row("most objects in an image", *(f"{stats.per_image['max']:.0f}" for stats in splits))
        for size, limit in zip(SIZES, ("below 32 x 32 px", "to 96 x 96 px", "above 96 x 96 px"), strict=True):
            shares = (100 * stats.per_size[size] / max(stats.objects, 1) for stats in splits)
            table.add_row(f"{size}, area {limit}", *(f"{share:.1f} %" for share in shares))
        table.add_row("median box side", *(f"{stats.side_px['p50']:.1f} px" for stats in splits))
        table.add_row("median width / height", *(f"{stats.aspect['p50']:.2f}" for stats in splits))
        console.print(table)
        classes = Table("class", *self.splits, "all")
        for column in classes.columns[1:]:
            column.justify = "right"
        for name in self.names[:100]:
            counts = [stats.per_class.get(name, 0) for stats in self.splits.values()]
            classes.add_row(name, *(f"{count:,}" for count in counts), f"{sum(counts):,}")
        console.print(classes)
        if len(self.names) > 100:
            console.print(f"... and {len(self.names) - 100} more classes in stats.json")
        for path in self.files:
            console.print(str(path), soft_wrap=True)


def write_stats(
    source: str | Path, output: Path, splits: Sequence[str] | None = None, *, cache_dir: Path | None = None
) -> DatasetStats:
    """Count, and write `stats.json`, `stats.png` and a contact sheet `images-<split>.png` per split.

    Args:
        source: a `data.yaml`, a COCO JSON or a folder.
        output: folder, made if absent.
        splits: which; all by default.
        cache_dir: for the indexes, as in `open_index`.
    """
    from cloverleaf.data.contact_sheet import draw_contact_sheet
    from cloverleaf.data.stats_plots import draw_overview

    indexes = {name: open_index(source, name, cache_dir=cache_dir) for name in splits or list_splits(source)}
    numbers = {name: split_stats(index) for name, index in indexes.items()}
    names = tuple(dict.fromkeys(name for index in indexes.values() for name in index.names))
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "stats.json", output / "stats.png"]
    content = {
        "source": str(source),
        "names": names,
        "splits": {name: _plain(stats) for name, stats in numbers.items()},
    }
    atomic.write_json(files[0], content, indent=1)
    draw_overview(indexes, names, files[1])
    for name, index in indexes.items():
        path = output / f"images-{name}.png"
        if draw_contact_sheet(index, path):
            files.append(path)
    return DatasetStats(str(source), names, numbers, tuple(files))


def split_stats(index: DetectionIndex) -> SplitStats:
    """Numbers of one split; histograms are over objects that are not crowds."""
    single = ~np.asarray(index.crowd)
    boxes, labels = np.asarray(index.boxes_xyxy)[single], np.asarray(index.labels)[single]
    sides = boxes[:, 2:] - boxes[:, :2]
    per_image = np.diff(index.object_offsets)
    counts = np.bincount(labels, minlength=len(index.names))
    size_class = size_classes(np.asarray(index.areas)[single])
    sizes, repeats = np.unique(np.asarray(index.sizes_hw), axis=0, return_counts=True)
    common = np.argsort(-repeats, kind="stable")[:20]
    tags: dict[str, int] = {}
    if index.tag_names:
        total = sum(tag for i in range(len(index)) if (tag := index.tags(i)) is not None)
        tags = {name: int(count) for name, count in zip(index.tag_names, np.asarray(total), strict=True)}
    return SplitStats(
        images=len(index),
        images_without_objects=int((per_image == 0).sum()),
        objects=len(labels),
        crowd=int((~single).sum()),
        per_class=dict(zip(index.names, counts.tolist(), strict=True)),
        per_size={name: int((size_class == k).sum()) for k, name in enumerate(SIZES)},
        per_image=_spread(per_image),
        side_px=_spread(np.sqrt(sides.prod(1))),
        aspect=_spread(sides[:, 0] / np.maximum(sides[:, 1], 1e-9)),
        image_sizes={f"{sizes[k, 1]}x{sizes[k, 0]}": int(repeats[k]) for k in common},
        tags=tags,
    )


def size_classes(areas: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """0 small, 1 medium, 2 large by the COCO limits."""
    return np.digitize(areas, [SMALL, LARGE])


def _spread(values: npt.NDArray[Any]) -> dict[str, float]:
    if len(values) == 0:
        return {"mean": 0.0, "max": 0.0, **{f"p{q}": 0.0 for q in _PERCENTILES}}
    quantiles = np.percentile(values, _PERCENTILES)
    found = {"mean": float(values.mean()), "max": float(values.max())}
    return found | {f"p{q}": float(value) for q, value in zip(_PERCENTILES, quantiles, strict=True)}


def _plain(stats: SplitStats) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(stats)
