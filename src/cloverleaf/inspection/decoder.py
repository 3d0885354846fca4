"""What decoders make of coarsest maps: those that the weights hold, or small ones fitted to the given images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cloverleaf.heads.supervision import ColumnSupervision
from cloverleaf.inspection.finding import Finding, Table
from cloverleaf.inspection.fitted import Examples, fit
from cloverleaf.inspection.pictures import Tile, draw_rows, psnr
from cloverleaf.inspection.subject import InspectOptions, Subject
from cloverleaf.structures import FeatureSpec

TRAINED, FITTED = "decoders_trained.png", "decoders_fitted.png"
_STEPS = 300
_MOST = 4  # columns that get a decoder
_EVERY = 4  # one image of so many is kept to judge by
_SHOWN, _BATCH = 3, 16
_STRIDES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one decoder made of some images.

    Attributes:
        name: of the map that it read.
        channels, stride: of that map; None for decoders of the model itself.
        images: (n, 3, S, S) in [0, 1].
        psnr_db: mean over the images.
    """

    name: str
    channels: int | None
    stride: int | None
    images: Tensor
    psnr_db: float


def refusal(subject: Subject, options: InspectOptions) -> str | None:
    """It applies to every backbone whose coarsest stride is a power of two."""
    for one in (subject, subject.compared):
        if one is not None and (stride := _coarsest(one)[1]) not in _STRIDES:
            return f"{one.name} has a coarsest map of stride {stride}, which is no power of two"
    if len(subject.images) < 2 and _fits(subject, options):
        return "one image is too few to fit decoders: some are learned from, others judged; give more images"
    return None


def run(subject: Subject, options: InspectOptions, folder: Path, say: Callable[[str], None]) -> Finding:
    """Draw the decoders that the model was trained with; fit others where it has none, or where they are asked for."""
    found = [_trained(subject, trained, folder)] if (trained := _own(subject)) else []
    if _fits(subject, options):
        found.append(_fitted(subject, options, folder, say))
    return Finding(
        tuple(note for one in found for note in one.notes),
        {name: facts for one in found for name, facts in one.facts.items()},
        tuple(table for one in found for table in one.tables),
        tuple(picture for one in found for picture in one.pictures),
    )


def _own(subject: Subject) -> ColumnSupervision | None:
    """What supervises the model, where it has decoders."""
    supervision = subject.model.supervision
    return supervision if isinstance(supervision, ColumnSupervision) and len(supervision.decoders) else None


def _fits(subject: Subject, options: InspectOptions) -> bool:
    """Whether decoders are to be fitted."""
    return _own(subject) is None or options.fit_decoder is not None or subject.compared is not None


@torch.no_grad()
def _trained(subject: Subject, supervision: ColumnSupervision, folder: Path) -> Finding:
    images = subject.images[:_BATCH].to(subject.device)
    maps = subject.maps(images)
    said = supervision(images, [*(maps[n] for n in supervision.columns), maps[-1]])
    decoded = [
        _judged(subject.label(column), None, None, cast(Tensor, one.image).sigmoid(), images)
        for column, one in zip(supervision.columns, said, strict=True)
    ]
    _draw(images, decoded, folder / TRAINED, title=f"{subject.name}: its own decoders, trained with it")
    return Finding(
        ("The model was trained with decoders of these columns: they draw what the columns were taught to keep.",),
        {"trained": _facts(decoded)}, (_table("trained decoders", decoded),), (folder / TRAINED,),
    )  # fmt: skip


def _fitted(subject: Subject, options: InspectOptions, folder: Path, say: Callable[[str], None]) -> Finding:
    subjects = [(subject, ""), *([(subject.compared, subject.compared.name)] if subject.compared else [])]
    steps = options.fit_decoder or _STEPS
    judged = torch.arange(len(subject.images)) % _EVERY == (_EVERY - 1 if len(subject.images) >= _EVERY else 1)
    decoded = []
    for one, name in subjects:
        channels, stride = _coarsest(one)
        learned = _mirrored(subject.images[~judged])
        maps, kept = _coarsest_maps(one, learned), _coarsest_maps(one, subject.images[judged])
        for column in [one.columns - 1] if name else _some(one.columns):
            say(f"decoder: {name or one.label(column)}, {steps} steps")
            decoder = fit(Examples(maps[column], learned.to(one.device)), stride, steps, options.seed)
            images = decoder.images(kept[column])
            decoded.append(_judged(name or one.label(column), channels, stride, images, subject.images[judged]))
    colour = subject.images[~judged].mean((0, 2, 3))[:, None, None].expand_as(subject.images[judged])
    baseline = _judged("one colour", None, None, colour, subject.images[judged])
    _draw(
        subject.images[judged], decoded, folder / FITTED,
        title=f"{subject.name}: decoders of the coarsest map, fitted in {steps} steps, on images not learned from",
    )  # fmt: skip
    title = f"fitted decoders: {int((~judged).sum())} images learned, {int(judged.sum())} judged"
    return Finding(
        ("Fitted decoders say how easily a small network reads the image from a map, a lower bound of what it holds.",),
        {"fitted": {"steps": steps, "learned": int((~judged).sum()), "judged": int(judged.sum()),
                    "one_colour_psnr_db": baseline.psnr_db, "maps": _facts(decoded)}},
        (_table(title, [*decoded, baseline]),), (folder / FITTED,),
    )  # fmt: skip


def _coarsest(subject: Subject) -> tuple[int, int]:
    """Channels and stride."""
    features = cast(FeatureSpec, cast(Any, subject.model.backbone).features)
    return features.channels[-1], features.strides[-1]


def _coarsest_maps(subject: Subject, images: Tensor) -> list[Tensor]:
    """Of every column, (n, C, h, w)."""
    parts = [[maps[-1].float() for maps in subject.maps(part)] for part in images.split(_BATCH)]
    return [torch.cat(of_column) for of_column in zip(*parts, strict=True)]


def _mirrored(images: Tensor) -> Tensor:
    """The images in all four orientations that mirrors give."""
    return torch.cat([images, images.flip(2), images.flip(3), images.flip(2, 3)])


def _some(columns: int) -> list[int]:
    """At most `_MOST` columns, evenly, with the last."""
    count = min(_MOST, columns)
    return [(j + 1) * columns // count - 1 for j in range(count)]


def _judged(name: str, channels: int | None, stride: int | None, images: Tensor, true: Tensor) -> Decoded:
    images = images.cpu()
    values = [psnr(a, b) for a, b in zip(true.cpu(), images, strict=True)]
    return Decoded(name, channels, stride, images, sum(values) / len(values))


def _draw(true: Tensor, decoded: Sequence[Decoded], path: Path, *, title: str) -> None:
    rows = [
        [Tile(true[i], ""), *(Tile(one.images[i], f"{psnr(true[i].cpu(), one.images[i]):.1f} dB") for one in decoded)]
        for i in range(min(_SHOWN, len(true)))
    ]
    draw_rows(rows, ("original", *(one.name for one in decoded)), path, title=title)


def _table(title: str, decoded: Sequence[Decoded]) -> Table:
    rows = [
        (one.name, "" if one.channels is None else f"{one.channels} x stride {one.stride}", f"{one.psnr_db:.2f}")
        for one in decoded
    ]
    return Table(title, ("decoded from", "map", "PSNR in dB"), tuple(rows))


def _facts(decoded: Sequence[Decoded]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "channels": one.channels, "stride": one.stride, "psnr_db": one.psnr_db} for one in decoded
    ]
