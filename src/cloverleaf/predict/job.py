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
from cloverleaf.errors import DataError
from cloverleaf.predict.draw import draw_detections
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.results import ResultFolder, categories_of
from cloverleaf.predict.sources import Picture, Sources, Unreadable, read_ahead
from cloverleaf.predict.video import read_frames, video_facts, write_video
from cloverleaf.structures.detections import Detections

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """What is written.

    Attributes:
        pictures: annotated pictures and videos.
        crops: every detection as a picture (images only).
        json: detections as JSON.
    """

    pictures: bool = True
    crops: bool = False
    json: bool = False


@dataclass(slots=True)
class JobSummary:
    """What a run did.

    Attributes:
        images, videos, frames: how many were looked at.
        counts: detections per class name.
        milliseconds: time in the detector.
        unreadable: what could not be read.
    """

    images: int = 0
    videos: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    milliseconds: float = 0.0
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, detections: Detections, milliseconds: float) -> None:
        """Count one image or frame."""
        self.counts.update(detections.names)
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
        detections, spent = _timed(predictor, picture)
        summary.images += 1
        summary.add(detections, spent)
        height, width = picture.original_hw
        tell(f"{path}: {width}x{height} {describe(Counter(detections.names))}, {spent:.1f} ms")
        if folder is not None:
            _save_image(folder, picture, detections, save)
    for path in sources.videos:
        try:
            _run_video(predictor, path, folder, save, summary, tell)
        except DataError as error:
            _refuse(summary, Unreadable(str(path), str(error)), tell)
    if folder is not None and save.json:
        folder.write_json(summary.unreadable)
    return summary


def describe(counts: Counter[str]) -> str:
    """'3 cell, 1 platelet', the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing found"


def _refuse(summary: JobSummary, item: Unreadable, tell: Tell) -> None:
    summary.unreadable.append(item)
    tell(f"not read: {item}")


def _timed(predictor: Predictor, picture: Picture) -> tuple[Detections, float]:
    start = time.perf_counter()
    detections = predictor.detect([picture])[0]
    return detections, 1000 * (time.perf_counter() - start)


def _save_image(folder: ResultFolder, picture: Picture, detections: Detections, save: SaveOptions) -> None:
    if save.pictures:
        folder.save_picture(picture, detections)
    if save.crops:
        folder.save_crops(picture, detections)
    if save.json:
        folder.record(detections)


def _run_video(
    predictor: Predictor, path: Path, folder: ResultFolder | None, save: SaveOptions, summary: JobSummary, tell: Tell
) -> None:
    """Detect in every frame; write an annotated mp4 and the detections per frame."""
    facts = video_facts(path)
    frames: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    spent = 0.0
    categories = [{"id": k, "name": name} for k, name in enumerate(predictor.class_names)]

    def look(pixels: np.ndarray) -> Detections:
        nonlocal spent, categories
        detections, milliseconds = _timed(predictor, Picture(pixels, (pixels.shape[0], pixels.shape[1]), str(path)))
        summary.add(detections, milliseconds)
        counts.update(detections.names)
        spent += milliseconds
        categories = categories_of(detections)
        frames.append({"frame": len(frames), "detections": detections.to_coco(len(frames))})
        return detections

    stream = read_frames(path)
    first = next(stream)
    size_hw = first.shape[:2]  # what the header says may be before rotation
    if folder is not None and save.pictures:
        with write_video(folder.reserve(path.stem, ".mp4"), size_hw, facts.fps) as write:
            for pixels in itertools.chain([first], stream):
                write(draw_detections(pixels, look(pixels)))
    else:
        for pixels in itertools.chain([first], stream):
            look(pixels)
    if folder is not None and (save.pictures or save.json):
        atomic.write_json(folder.reserve(path.stem, ".json"), {
            "video": str(path), "fps": facts.fps, "height": size_hw[0], "width": size_hw[1],
            "categories": categories, "frames": frames,
        })  # fmt: skip
    summary.videos += 1
    summary.frames += len(frames)
    tell(f"{path}: {len(frames)} frames, {describe(counts)}, {spent / max(len(frames), 1):.1f} ms per frame")
