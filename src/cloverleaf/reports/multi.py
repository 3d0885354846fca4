"""Pictures of tags and of retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.boxes import Pixels
from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import COLOURS, INK, MUTED, PAPER, colour_of, rgb
from cloverleaf.drawing.sheet import paper, save_picture
from cloverleaf.drawing.text import FONT, printable

_RIGHT, _WRONG = (0, 128, 92), (196, 48, 43)
_FRAME, _LINE, _GAP, _HEAD = 4, 18, 8, 26
_MARGIN = 0.25  # of the box's sides that is shown around it
_MOST_TAGS = 60


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query and what was found most similar to it.

    Attributes:
        query: (h, w, 3) uint8 RGB.
        nearest: the same of the others, best first.
        similarity: their cosines.
        right: whether they are the same individual.
    """

    query: Pixels
    nearest: Sequence[Pixels]
    similarity: Sequence[float]
    right: Sequence[bool]


def plot_tag_precisions(
    names: Sequence[str], ap: npt.NDArray[Any], f1: npt.NDArray[Any], chance: npt.NDArray[Any], path: Path
) -> None:
    """Average precision of every tag as a bar, the best first, with its F1 and with what chance would give.

    Args:
        names: T names.
        ap, f1: (T,); NaN where undefined. Tags without average precision are left out, and beyond 60 the middle ones.
        chance: (T,) average precision of guesses.
        path: the PNG to write.
    """
    order = [int(k) for k in np.argsort(-np.nan_to_num(ap), kind="stable") if np.isfinite(ap[k])]
    if len(order) > _MOST_TAGS:
        order = order[: _MOST_TAGS // 2] + order[-_MOST_TAGS // 2 :]
    shown = printable(list(names))
    rows = np.arange(len(order))
    with figure(path, 7.6, max(2.4, 0.26 * len(order) + 1.2)) as drawing:
        axis = drawing.subplots()
        axis.barh(rows, ap[order], 0.7, color=colour_of(0), alpha=0.75, label="average precision")
        axis.plot(f1[order], rows, "o", color=INK, markersize=4, label="F1")
        axis.plot(chance[order], rows, "|", color=COLOURS[3], markersize=11, markeredgewidth=2, label="chance")
        axis.set_yticks(rows, [shown[k] for k in order])
        axis.set(xlim=(0, 1.02), ylim=(max(len(order), 1) - 0.4, -0.6))
        axis.grid(visible=False, axis="y")
        axis.set_title("Average precision of each tag")
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def plot_retrieval(parts: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]], path: Path) -> None:
    """Recall and average precision of retrieval as bars, with what chance would give.

    Args:
        parts: of groups of queries by their names, values and chance by metric.
        path: the PNG to write.
    """
    metrics = list(next(iter(parts.values()))[0])
    with figure(path, 6.4, 3.4) as drawing:
        axis = drawing.subplots()
        width = 0.8 / len(parts)
        for k, (name, (values, chance)) in enumerate(parts.items()):
            places = np.arange(len(metrics)) + (k - (len(parts) - 1) / 2) * width
            axis.bar(places, [values[m] for m in metrics], 0.92 * width, color=colour_of(k), label=name)
            lines = [chance[m] for m in metrics]
            axis.hlines(lines, places - width / 2, places + width / 2, color=INK, label="chance" if not k else None)
        axis.set_xticks(range(len(metrics)), ["mAP" if m == "retrieval_mAP" else f"within {m[1:]}" for m in metrics])
        axis.set_ylim(0, 1.02)
        axis.set_title("The same individual in another image")
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def crop_around(image: Pixels, box_xyxy: Sequence[float]) -> Pixels:
    """An object with a little of what is around it."""
    x1, y1, x2, y2 = box_xyxy
    across, down = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    left, top = max(int(np.floor(x1 - across)), 0), max(int(np.floor(y1 - down)), 0)
    right, bottom = max(int(np.ceil(x2 + across)), left + 1), max(int(np.ceil(y2 + down)), top + 1)
    return image[top:bottom, left:right]


def draw_rankings(items: Sequence[Ranking], path: Path, *, tile: int = 112) -> None:
    """A row per query: the query, then the most similar objects of other images in green frames where they are the
    same individual, in red ones where not, with their cosines.

    Args:
        items: the queries; none is allowed and draws an empty sheet.
        path: the PNG or JPEG to write.
        tile: side of one object in the sheet, pixels.
    """
    columns = max((len(item.nearest) for item in items), default=0)
    cell = tile + 2 * _FRAME + _GAP
    width = _GAP + cell + 2 * _GAP + columns * cell
    head = paper(_HEAD, width)
    for text, x in (("query", _GAP), ("most similar in other images", cell + 3 * _GAP)):
        cv2.putText(head, text, (x, 18), FONT, 0.45, rgb(INK), 1, cv2.LINE_AA)
    rows = [head]
    for item in items:
        row = paper(tile + 2 * _FRAME + _LINE + _GAP, width)
        _put(row, _GAP, item.query, rgb(MUTED), "", tile)
        for k, (picture, cosine, right) in enumerate(zip(item.nearest, item.similarity, item.right, strict=False)):
            _put(row, cell + 3 * _GAP + k * cell, picture, _RIGHT if right else _WRONG, f"{cosine:.2f}", tile)
        rows.append(row)
    save_picture(path, np.vstack(rows))


def _put(row: Pixels, x: int, picture: Pixels, colour: tuple[int, int, int], text: str, tile: int) -> None:
    """A framed picture with a text below it, in place."""
    height, width = picture.shape[:2]
    zoom = tile / max(height, width)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    side = tile + 2 * _FRAME
    row[:side, x : x + side] = colour
    row[_FRAME : _FRAME + tile, x + _FRAME : x + _FRAME + tile] = rgb(PAPER)
    top, left = _FRAME + (tile - size[1]) // 2, x + _FRAME + (tile - size[0]) // 2
    row[top : top + size[1], left : left + size[0]] = scaled
    cv2.putText(row, text, (x + 2, side + _LINE - 4), FONT, 0.42, colour, 1, cv2.LINE_AA)
