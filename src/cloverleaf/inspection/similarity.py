"""How alike the maps of all columns and levels are, and how alike they are to the pixels (arXiv 1905.00414)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor

from cloverleaf.inspection.finding import Finding, Table
from cloverleaf.inspection.pictures import plot_similarities
from cloverleaf.inspection.subject import InspectOptions, Subject
from cloverleaf.ops.resize import pool_to
from cloverleaf.ops.similarity import LEAST_EXAMPLES, normalised, unbiased_hsic
from cloverleaf.structures import FeatureSpec

NAME = "similarity.png"
_PIXELS_ALONG = 4  # values along the side of a cell to which pixels are averaged
_BATCH = 256  # examples whose similarities are estimated at once
_STEADY = 100  # examples from which on chance says little


def refusal(subject: Subject, options: InspectOptions) -> str | None:
    """It applies to every backbone, but needs enough cells."""
    cells = len(subject.images) * (options.image_size // _strides(subject)[-1]) ** 2
    if cells >= LEAST_EXAMPLES:
        return None
    return f"the images have {cells} cells of the coarsest map and similarities need {LEAST_EXAMPLES}; give more images"


def run(subject: Subject, options: InspectOptions, folder: Path, say: Callable[[str], None]) -> Finding:
    """Similarities of every pair, drawn as a map of colours.

    The examples are the cells of the coarsest map in all images; finer maps are averaged over each cell, and the pixels
    to 4 x 4 colours in it.
    """
    strides = _strides(subject)
    cells = options.image_size // strides[-1]
    batches = _batches(len(subject.images), cells**2)
    total = sum(unbiased_hsic(_examples(subject, subject.images[start:end])) for start, end in batches)
    matrix = normalised(cast(Tensor, total) / len(batches))
    groups = ["pixels", *(subject.label(column) for column in range(subject.columns))]
    labels = ["pixels", *(f"{group}, stride {stride}" for group in groups[1:] for stride in strides)]
    plot_similarities(
        matrix.numpy(), [("", ["pixels"]), *((group, [str(s) for s in strides]) for group in groups[1:])],
        folder / NAME, title=subject.name,
    )  # fmt: skip
    say(f"similarity: {sum(end - start for start, end in batches) * cells**2} cells in {len(batches)} batches")
    to_pixels = matrix[0, 1:].reshape(-1, len(strides)).tolist()
    rows = tuple(
        (group, *(f"{value:.2f}" for value in values)) for group, values in zip(groups[1:], to_pixels, strict=True)
    )
    return Finding(
        notes=_notes(cells**2 * len(subject.images)),
        facts={"labels": labels, "cka": _plain(matrix), "cells": cells**2 * len(subject.images)},
        tables=(Table("similarity to the pixels (CKA)", ("", *(f"stride {s}" for s in strides)), rows),),
        pictures=(folder / NAME,),
    )


def _notes(examples: int) -> tuple[str, ...]:
    meaning = "similarity.png: 1 where two maps hold the same up to rotation and scale of their channels."
    if examples >= _STEADY:
        return (meaning,)
    return (meaning, f"{examples} cells are few: chance moves the numbers, also below 0; give more or larger images.")


def _strides(subject: Subject) -> tuple[int, ...]:
    return cast(FeatureSpec, cast(Any, subject.model.backbone).features).strides


def _batches(images: int, cells: int) -> list[tuple[int, int]]:
    """First and last + 1 of the images of every batch; a rest too small for the estimate joins the batch before."""
    size = max(_BATCH // cells, -(-LEAST_EXAMPLES // cells))
    starts = [start for start in range(0, images, size) if start == 0 or images - start >= size]
    ends = [*starts[1:], images]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if (b - a) * cells >= LEAST_EXAMPLES]


def _examples(subject: Subject, images: Tensor) -> list[Tensor]:
    """(n, d) float64 of the pixels and of every map, one row for each cell."""
    maps = [one for column in subject.maps(images) for one in column]
    size_hw = (maps[-1].shape[2], maps[-1].shape[3])
    pixels = F.pixel_unshuffle(pool_to(images, (size_hw[0] * _PIXELS_ALONG, size_hw[1] * _PIXELS_ALONG)), _PIXELS_ALONG)
    return [_rows(one) for one in (pixels, *(pool_to(one.cpu().float(), size_hw) for one in maps))]


def _rows(x: Tensor) -> Tensor:
    return x.double().flatten(2).transpose(1, 2).flatten(0, 1)


def _plain(matrix: Tensor) -> Sequence[Sequence[float | None]]:
    """JSON has no NaN."""
    return [[None if value != value else round(value, 6) for value in row] for row in matrix.tolist()]
