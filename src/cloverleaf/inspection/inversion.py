"""Earlier columns and the image itself from the last column (RevCol, arXiv 2212.11696, section 2.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cloverleaf.backbones.revcol.backbone import RevCol
from cloverleaf.backbones.revcol.column import Column, Features
from cloverleaf.backbones.revcol.inversion import FoundStem, find_stem, invert_column, invert_columns
from cloverleaf.backbones.revcol.stem_inverse import StemInverse, invert_stem
from cloverleaf.inspection.finding import Finding, Table
from cloverleaf.inspection.pictures import Tile, draw_rows, plot_errors, psnr
from cloverleaf.inspection.subject import InspectOptions, Subject

PICTURE, ERRORS = "inversion.png", "inversion_errors.png"
_SHOWN = 3
_SETTLED = 1e-9  # error of the stem's output beyond which nothing is concluded from it
_GAIN = 8  # of differences, so that they are seen

Errors = list[list[float]]


@dataclass(frozen=True, slots=True)
class ColumnErrors:
    """Largest absolute error of every earlier column and level.

    Attributes:
        step32: float32, each column from its own right neighbour, as in reversible training.
        chain32: float32, all from the last column.
        chain64: float64, all from the last column.
        largest: magnitude of the features themselves.
    """

    step32: Errors
    chain32: Errors
    chain64: Errors
    largest: Errors


def refusal(subject: Subject, options: InspectOptions) -> str | None:
    """It is for reversible columns."""
    if isinstance(subject.model.backbone, RevCol):
        return None
    kind = subject.model.spec.backbone.type
    return (
        f"{subject.name} has backbone {kind!r}; only reversible columns (revcol-pico, revcol-tiny, ...) can be inverted"
    )


@torch.no_grad()
def run(subject: Subject, options: InspectOptions, folder: Path, say: Callable[[str], None]) -> Finding:
    """Find what led to the maps of the last column: the stem's output, all earlier columns, and the image."""
    backbone = copy.deepcopy(subject.model.backbone).eval()
    assert isinstance(backbone, RevCol)
    images = subject.images[:_SHOWN].to(subject.device).double()
    single, exact = copy.deepcopy(backbone).float(), backbone.double()
    columns = _columns(exact)
    stem = exact.stem(exact.prepared(images))
    maps = exact.forward_columns(images, range(len(columns) - 1))
    found = find_stem(columns, maps[-1])
    settled = found.error < _SETTLED
    say(f"inversion: {found.passes} passes, error {found.error:.0e}")
    inverse = invert_stem(exact.stem, found.stem if settled else stem)
    pictures = _as_pixels(exact, inverse.image)
    errors = column_errors(single, exact, images, found.stem if settled else stem)
    _draw(subject, images, pictures, inverse, folder / PICTURE, settled=settled)
    written = [folder / PICTURE]
    if errors.chain64:
        plot_errors(
            {"float32, one column": errors.step32, "float32, all columns": errors.chain32,
             "float64, all columns": errors.chain64}, folder / ERRORS, title=subject.name,
        )  # fmt: skip
        written.append(folder / ERRORS)
    return Finding(
        notes=_notes(exact, found, inverse, settled=settled),
        facts=_facts(found, inverse, errors, images, pictures, stem),
        tables=tuple(_tables(errors)),
        pictures=tuple(written),
    )


def column_errors(single: RevCol, exact: RevCol, images: Tensor, found: Tensor) -> ColumnErrors:
    """How far inverted columns are from those of the forward pass.

    Args:
        single, exact: the same backbone in float32 and float64.
        images: (B, 3, H, W) float64.
        found: stem's output from which columns are inverted in float64.
    """
    last = len(exact.columns) - 1
    true64 = exact.forward_columns(images, range(last))
    true32 = single.forward_columns(images.float(), range(last))
    stem32 = single.stem(single.prepared(images.float()))
    columns = _columns(single)
    steps = [invert_column(column, stem32, features) for column, features in zip(columns[1:], true32[1:], strict=True)]
    return ColumnErrors(
        step32=_differences(steps, true32),
        chain32=_differences(invert_columns(columns, stem32, true32[-1]), true32),
        chain64=_differences(invert_columns(_columns(exact), found, true64[-1]), true64),
        largest=[[float(c.abs().max()) for c in features] for features in true64[:-1]],
    )


def _columns(backbone: RevCol) -> list[Column]:
    return [column for column in backbone.columns if isinstance(column, Column)]


def _differences(found: Sequence[Features], true: Sequence[Features]) -> Errors:
    return [
        [float((a - b).abs().max()) for a, b in zip(one, other, strict=True)]
        for one, other in zip(found, true[:-1], strict=True)
    ]


def _as_pixels(backbone: RevCol, prepared: Tensor) -> Tensor:
    """What the first layer reads -> RGB, not clipped."""
    return prepared * backbone.std + backbone.mean if backbone.normalize else prepared


def _draw(subject: Subject, images: Tensor, found: Tensor, inverse: StemInverse, path: Path, *, settled: bool) -> None:
    source = "last column alone" if settled else "stem (columns did not settle)"
    what = f"all {inverse.of}" if inverse.exact else f"{inverse.kept} of {inverse.of}"
    rows = []
    for image, other in zip(images, found, strict=True):
        difference = (_GAIN * (other - image).abs()).clamp(0, 1)
        rows.append([
            Tile(image, ""), Tile(other.clamp(0, 1), f"{psnr(image, other):.1f} dB"),
            Tile(difference, f"at most {float((other - image).abs().max()):.1e}"),
        ])  # fmt: skip
    heads = ("original", f"from the {source}", f"difference x {_GAIN}")
    draw_rows(rows, heads, path, title=f"{subject.name}: the stem keeps {what} numbers of a patch")


def _notes(backbone: RevCol, found: FoundStem, inverse: StemInverse, *, settled: bool) -> tuple[str, ...]:
    if settled:
        columns = (
            f"Columns lose nothing: the last column alone gives the stem's output "
            f"({found.passes} passes, error {found.error:.0e}), and with it every earlier column."
        )
    else:
        columns = (
            f"Every column is exact given the stem's output; that one was not found from the last column alone "
            f"(error {found.error:.0e} after {found.passes} passes), so the picture starts from the true one."
        )
    if inverse.exact:
        stem = f"The stem loses nothing either: all {inverse.of} numbers of a patch come back."
    else:
        stem = (
            f"The stem keeps {inverse.kept} of the {inverse.of} numbers of a patch: the rest is lost there, whatever "
            f"follows, and drawn as smooth as possible. 49 channels or more would keep all; it has "
            f"{backbone.features.channels[0]}."
        )
    return columns, stem


def _facts(
    found: FoundStem, inverse: StemInverse, errors: ColumnErrors, images: Tensor, pictures: Tensor, stem: Tensor
) -> dict[str, Any]:
    return {
        "stem": {
            "passes": found.passes, "error": found.error,
            "largest_error": float((found.stem - stem).abs().max()), "settled": found.error < _SETTLED,
        },
        "patch": {"kept": inverse.kept, "of": inverse.of},
        "image": {
            "largest_error": float((pictures - images).abs().max()),
            "psnr_db": [psnr(a, b) for a, b in zip(images, pictures, strict=True)],
        },
        "columns": [
            {"column": n + 1, "float32_one_column": errors.step32[n], "float32_all_columns": errors.chain32[n],
             "float64_all_columns": errors.chain64[n], "largest_feature": errors.largest[n]}
            for n in range(len(errors.chain64))
        ],
    }  # fmt: skip


def _tables(errors: ColumnErrors) -> list[Table]:
    if not errors.chain64:
        return []
    kinds = (("float32, one column", errors.step32), ("float32, all", errors.chain32), ("float64, all", errors.chain64))
    rows = [
        (f"column {n + 1}", name, *(f"{value:.1e}" for value in kind[n]))
        for n in range(len(errors.chain64))
        for name, kind in kinds
    ]
    heads = ("of", "inverted in", "stride 4", "stride 8", "stride 16", "stride 32")
    return [Table("largest error of inverted columns", heads, tuple(rows))]
