"""A whole prediction run: every source through the predictor, results written, faults collected."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloverleaf import atomic
from cloverleaf.data.video_io import read_frames, video_facts, write_video
from cloverleaf.drawing.tags import draw_tags
from cloverleaf.errors import DataError
from cloverleaf.predict.draw import draw_detections, draw_segments
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.results import (
    Found,
    ResultFolder,
    categories_of,
    coco_rows,
    rounded_classes,
    rounded_shares,
    rounded_tags,
    write_embeddings,
)
from cloverleaf.predict.sources import Picture, Sources, Unreadable, read_ahead
from cloverleaf.reports.classes import draw_classified
from cloverleaf.structures import Classification, Detections, LabelMap

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """What is written.

    Attributes:
        pictures: annotated pictures and videos; of label maps also the maps themselves (images only).
        crops: every detection as a picture (images only, not of label maps).
        json: what was found as JSON.
        embeddings: of every detection, beside its JSON.
    """

    pictures: bool = True
    crops: bool = False
    json: bool = False
    embeddings: bool = False


@dataclass(slots=True)
class JobSummary:
    """What a run did.

    Attributes:
        images, videos, frames: how many were looked at.
        counts: detections per class name; of label maps the images in which the class is; of classified images those
            whose likeliest class it is.
        milliseconds: time in the detector.
        unreadable: what could not be read.
    """

    images: int = 0
    videos: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    milliseconds: float = 0.0
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, found: Found, milliseconds: float) -> None:
        """Count one image or frame."""
        self.counts.update(_classes(found))
        self.milliseconds += milliseconds


def run_job(
    predictor: Predictor, sources: Sources, folder: ResultFolder | None, save: SaveOptions, tell: Tell
) -> JobSummary:
    """Look at every source; what cannot be read is told, collected and passed over.

    Args:
        predictor: the detector.
        sources: the files.
        folder: where results go; None writes nothing.
        save: what is written.
        tell: takes one line of text per image and per video.
    """
    summary = JobSummary(unreadable=list(sources.unreadable))
    for item in sources.unreadable:
        tell(f"not read: {item}")
    for path, picture in read_ahead(sources.images):
        if isinstance(picture, Unreadable):
            _refuse(summary, picture, tell)
            continue
        found, spent = _timed(predictor, picture)
        summary.images += 1
        summary.add(found, spent)
        height, width = picture.original_hw
        tell(f"{path}: {width}x{height} {_describe_one(found)}, {spent:.1f} ms")
        if folder is not None:
            _save_image(folder, picture, found, save)
    for path in sources.videos:
        try:
            _run_video(predictor, path, folder, save, summary, tell)
        except DataError as error:
            _refuse(summary, Unreadable(str(path), str(error)), tell)
    if folder is not None and save.json:
        folder.write_json(summary.unreadable)
        if save.embeddings:
            folder.write_embeddings()
    return summary


def describe(counts: Counter[str]) -> str:
    """'3 cell, 1 platelet', the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def _classes(found: Found) -> list[str]:
    """The classes that are there, one for each object; of pixels each once, without the background."""
    if isinstance(found, Detections):
        return found.names
    if isinstance(found, Classification):
        return [found.name]
    return [name for name in found.shares if name != found.class_names[0]]


def _describe_one(found: Found) -> str:
    if isinstance(found, Detections):
        tags = ", ".join(f"{name} {score:.2f}" for name, score in found.tagged()) or "none"
        return describe(Counter(found.names)) + ("" if found.tags is None else f"; tags: {tags}")
    if isinstance(found, Classification):
        return ", ".join(f"{name} {score:.3f}" for name, score in found.top())
    return ", ".join(f"{100 * share:.1f} % {name}" for name, share in found.shares.items())


def _refuse(summary: JobSummary, item: Unreadable, tell: Tell) -> None:
    summary.unreadable.append(item)
    tell(f"not read: {item}")


def _timed(predictor: Predictor, picture: Picture) -> tuple[Found, float]:
    looks: dict[str, Callable[..., Any]] = {"semantic": predictor.segment, "classify": predictor.classify}
    start = time.perf_counter()
    found: Found = looks.get(predictor.task, predictor.detect)([picture])[0]
    return found, 1000 * (time.perf_counter() - start)


def _save_image(folder: ResultFolder, picture: Picture, found: Found, save: SaveOptions) -> None:
    labels = None
    if save.pictures:
        folder.save_picture(picture, found)
        if isinstance(found, LabelMap):
            labels = folder.save_labels(found)
    if save.crops and isinstance(found, Detections):
        folder.save_crops(picture, found)
    if save.json:
        folder.record(found, labels)


def _frame(pixels: np.ndarray, found: Found) -> np.ndarray:
    """A frame of the same size with what was found."""
    if isinstance(found, Detections):
        drawn = draw_detections(pixels, found)
        return drawn if found.tags is None else draw_tags(drawn, found.tagged(), inside=True)
    if isinstance(found, Classification):
        return draw_classified(pixels, found.top(1), inside=True)
    return draw_segments(pixels, found, with_legend=False)


def _frame_row(found: Found, number: int) -> dict[str, Any]:
    """What was found in a frame, for JSON."""
    if isinstance(found, Detections):
        tags = {} if found.tags is None else {"tags": rounded_tags(found)}
        return {**tags, "detections": coco_rows(found, number)}
    if isinstance(found, Classification):
        return {"classes": rounded_classes(found)}
    return {"shares": rounded_shares(found)}


def _run_video(
    predictor: Predictor, path: Path, folder: ResultFolder | None, save: SaveOptions, summary: JobSummary, tell: Tell
) -> None:
    """Detect in every frame; write an annotated mp4 and the detections per frame."""
    facts = video_facts(path)
    frames: list[dict[str, Any]] = []
    embeddings: list[np.ndarray] = []
    counts: Counter[str] = Counter()
    spent = 0.0
    categories = [{"id": k, "name": name} for k, name in enumerate(predictor.class_names)]

    def look(pixels: np.ndarray) -> Found:
        nonlocal spent, categories
        found, milliseconds = _timed(predictor, Picture(pixels, (pixels.shape[0], pixels.shape[1]), str(path)))
        summary.add(found, milliseconds)
        spent += milliseconds
        categories = categories_of(found)
        counts.update(_classes(found))
        frames.append({"frame": len(frames), **_frame_row(found, len(frames))})
        if save.embeddings and isinstance(found, Detections) and found.embeddings is not None:
            embeddings.append(found.embeddings)
        return found

    stream = read_frames(path)
    first = next(stream)
    size_hw = first.shape[:2]  # what the header says may be before rotation
    if folder is not None and save.pictures:
        with write_video(folder.reserve(path.stem, ".mp4"), size_hw, facts.fps) as write:
            for pixels in itertools.chain([first], stream):
                write(_frame(pixels, look(pixels)))
    else:
        for pixels in itertools.chain([first], stream):
            look(pixels)
    if folder is not None and (save.pictures or save.json):
        table = folder.reserve(path.stem, ".json")
        atomic.write_json(table, {
            "video": str(path), "fps": facts.fps, "height": size_hw[0], "width": size_hw[1],
            "categories": categories, "frames": frames,
        })  # fmt: skip
        if embeddings:
            write_embeddings(folder.reserve(table.stem, ".npz"), embeddings)
    summary.videos += 1
    summary.frames += len(frames)
    tell(f"{path}: {len(frames)} frames, {describe(counts)}, {spent / max(len(frames), 1):.1f} ms per frame")
