"""A whole tracking run: every video through detector and tracker, results written, tracks scored."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloverleaf import atomic
from cloverleaf.data.mot import read_mot
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.results import numbered
from cloverleaf.predict.sources import Picture, Unreadable
from cloverleaf.structures import Detections
from cloverleaf.tracking.footage import Footage, open_footage
from cloverleaf.tracking.options import TrackOptions
from cloverleaf.tracking.results import Summary, track_files
from cloverleaf.tracking.scores import TrackScores, combined, other_classes, read_truth, score_tracks
from cloverleaf.tracking.tracker import Tracker, settled

Pixels = npt.NDArray[np.uint8]
Tell = Callable[[str], None]
_AT_ONCE = 4  # frames that go through the detector together


@dataclass(frozen=True, slots=True)
class TrackJob:
    """What is tracked and what is written.

    Attributes:
        folder: for the results.
        options: how tracks are made.
        video: write annotated videos.
        json_file: write JSON.
        fps: of folders of frames, None as `open_footage` says.
        truths: a file per source, or none at all.
        need_embeddings: refuse models that give none.
    """

    folder: Path
    options: TrackOptions
    video: bool = True
    json_file: bool = False
    fps: float | None = None
    truths: tuple[Path, ...] = ()
    need_embeddings: bool = False


@dataclass(slots=True)
class TrackOutcome:
    """What a run did.

    Attributes:
        done: name of each video that was tracked, and how many tracks it has.
        scores: of each video with truth, by name; of several also ``all``.
        unreadable: what could not be tracked.
    """

    done: dict[str, int] = field(default_factory=dict)
    scores: dict[str, TrackScores] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)


def run_tracks(
    predictor: Predictor, sources: Sequence[str | os.PathLike[str]], job: TrackJob, tell: Tell
) -> TrackOutcome:
    """Track through every source; what cannot be read is told, collected and passed over, and leaves no file.

    Args:
        predictor: the detector; its confidence decides which weak detections may continue tracks.
        sources: videos and folders of frames.
        job: what is written.
        tell: takes one line of text per video.

    Raises:
        ConfigError: the model finds no objects, or has no embeddings where they are wanted; or there are not as many
            truths as sources.
        DataError: a truth cannot be read or does not fit its video.
    """
    name, task = predictor.engine.info.name, predictor.task
    if task in ("semantic", "classify"):
        why = f"it is a model for --task {task}"
        raise ConfigError(f"{name} finds no objects", why, "use one for boxes, instances or several tasks")
    if job.need_embeddings and not predictor.engine.info.embedding_strides:
        why = f"{name} gives no embeddings"
        raise ConfigError("--appearance has no effect", why, "leave it out, or train a model with --task multi")
    if job.truths and len(job.truths) != len(sources):
        raise ConfigError(
            f"{len(job.truths)} truths for {len(sources)} videos", "each video needs its own, in the same order",
            "give --truth once per video",
        )  # fmt: skip
    outcome = TrackOutcome()
    opened = []
    for source, path in zip(sources, job.truths or [None] * len(sources), strict=True):
        try:
            footage = open_footage(source, job.fps)
        except DataError as error:
            _refuse(outcome, source, error, tell)
            continue
        opened.append((footage, None if path is None else read_truth(path, footage.expected)))
    for footage, truth in opened:
        try:
            stem, frames = _track_one(predictor, footage, job, outcome, tell)
        except DataError as error:
            _refuse(outcome, footage.path, error, tell)
            continue
        if truth is not None:
            found = read_mot(job.folder / f"{stem}.txt")
            across = job.options.across_classes
            outcome.scores[stem] = score_tracks(truth, found, frames, across_classes=across)
            note = "" if across else other_classes(truth, found)
            if note:
                tell(f"note: {note}")
    if len(outcome.scores) > 1:
        outcome.scores["all"] = combined(list(outcome.scores.values()))
    if outcome.scores:
        scores = {name: one.rounded() for name, one in outcome.scores.items()}
        atomic.write_json(job.folder / "scores.json", scores, indent=1)
    return outcome


def _refuse(outcome: TrackOutcome, source: str | os.PathLike[str], error: DataError, tell: Tell) -> None:
    item = Unreadable(os.fspath(source), str(error))
    outcome.unreadable.append(item)
    tell(f"not tracked: {item}")


def _track_one(
    predictor: Predictor, footage: Footage, job: TrackJob, outcome: TrackOutcome, tell: Tell
) -> tuple[str, int]:
    """Track and write one video: the name of its files, and its frames."""
    stem = next(path.name for path in numbered(Path(footage.name)) if path.name not in outcome.done)
    tracker = Tracker(fps=footage.fps, options=job.options)
    spent = _Stopwatch()
    with track_files(job.folder, stem, footage, video=job.video, json_file=job.json_file) as files:
        found = _detected(predictor, footage, spent)
        seen = ((pixels, tracker.update(detections, at)) for at, pixels, detections in found)
        for pixels, tracked in settled(seen):
            files.add(pixels, tracked)
    outcome.done[stem] = len(files.summary.tracks)
    tell(_describe(footage, files.summary, spent.milliseconds))
    return stem, files.summary.frames


@dataclass(slots=True)
class _Stopwatch:
    milliseconds: float = 0.0


def _detected(predictor: Predictor, footage: Footage, spent: _Stopwatch) -> Iterator[tuple[float, Pixels, Detections]]:
    """Every frame with its time and detections; a few frames are in memory at once."""
    frames = footage.frames()
    while block := list(itertools.islice(frames, _AT_ONCE)):
        pictures = [Picture(pixels, (pixels.shape[0], pixels.shape[1]), str(footage.path)) for _, pixels in block]
        start = time.perf_counter()
        found = predictor.detect(pictures)
        spent.milliseconds += 1000 * (time.perf_counter() - start)
        yield from ((at, pixels, one) for (at, pixels), one in zip(block, found, strict=True))


def _describe(footage: Footage, summary: Summary, milliseconds: float) -> str:
    """'clip.mp4: 60 frames, 8 tracks (5 star, 3 disc), 11.0 ms per frame'."""
    counts = Counter(track.name for track in summary.tracks.values())
    kinds = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    many = f"{len(summary.tracks)} track{'' if len(summary.tracks) == 1 else 's'} ({kinds})" if counts else "no tracks"
    spent = f"{milliseconds / max(summary.frames, 1):.1f} ms per frame"
    text = f"{footage.path}: {summary.frames} frames, {many}, {spent}"
    if summary.frames < footage.expected:
        text += f"; the file promises {footage.expected} frames, the rest cannot be decoded"
    return text
