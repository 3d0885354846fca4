"""Tracks against the truth: HOTA, MOTA, IDF1 and what they are made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from cloverleaf.data.mot import MotTable, read_mot
from cloverleaf.errors import DataError
from cloverleaf.tracking.extras import require_trackers

Ids = npt.NDArray[np.int64]
_MATCHED = 0.5  # IoU from which a box is taken to be that of an object


@dataclass(frozen=True, slots=True)
class TrackScores:
    """How good the tracks of one or more videos are; shares in [0, 1] unless it says otherwise.

    Attributes:
        hota: higher order tracking accuracy (arXiv 2009.07736), the geometric mean of the next two over 19 IoUs.
        deta, assa: its detection and association accuracy.
        mota: 1 - (missed + wrong + switched) / all, at IoU 0.5; below 0 where there are more mistakes than objects.
        idf1: F1 of the boxes whose track is the one that belongs to the individual, at IoU 0.5.
        recall, precision: of the boxes, at IoU 0.5.
        switches: how often an individual went on under another number.
        individuals, tracks: how many there are and how many were made; of several videos their sums.
        parts: the library's numbers, from which those of several videos are put together.
    """

    hota: float
    deta: float
    assa: float
    mota: float
    idf1: float
    recall: float
    precision: float
    switches: int
    individuals: int
    tracks: int
    parts: Mapping[str, Mapping[str, Any]]

    def rounded(self) -> dict[str, float | int]:
        """For JSON."""
        names = ("hota", "deta", "assa", "mota", "idf1", "recall", "precision")
        shares = {name: round(float(getattr(self, name)), 5) for name in names}
        return {**shares, "switches": self.switches, "individuals": self.individuals, "tracks": self.tracks}


def score_tracks(truth: MotTable, found: MotTable, frames: int, *, across_classes: bool = False) -> TrackScores:
    """Compare tracks with the truth.

    Boxes of the truth whose score is 0 are not counted, nor are boxes that were found on them. Boxes of different
    classes do not match, unless one of the files does not say the class.

    Args:
        truth, found: tracks of one video.
        frames: its length; more where one of the files has more.
        across_classes: do not look at classes.

    Raises:
        MissingExtraError: the extra `track` is not installed.
    """
    require_trackers()
    from trackers.eval import box_iou, compute_clear_metrics, compute_hota_metrics, compute_identity_metrics

    frames = max([frames, *truth.frames[-1:].tolist(), *found.frames[-1:].tolist()])
    true_ids, found_ids, likeness = [], [], []
    for true, seen in zip(_by_frame(truth, frames), _by_frame(found, frames), strict=True):
        overlap = np.asarray(box_iou(truth.xyxy[true], found.xyxy[seen])).reshape(len(true), len(seen))
        if not across_classes:
            overlap = overlap * _same_class(truth.classes[true], found.classes[seen])
        counted = truth.scores[true] > 0
        kept = ~_on_uncounted(overlap, counted)
        true_ids.append(truth.ids[true][counted])
        found_ids.append(found.ids[seen][kept])
        likeness.append(overlap[counted][:, kept])
    given = (true_ids, found_ids, likeness)
    parts = {
        "hota": compute_hota_metrics(*given),
        "clear": compute_clear_metrics(*given, threshold=_MATCHED),
        "identity": compute_identity_metrics(*given, threshold=_MATCHED),
    }
    individuals, tracks = (len(np.unique(np.concatenate(ids))) for ids in (true_ids, found_ids))
    return _scores(parts, individuals, tracks)


def combined(scores: Sequence[TrackScores]) -> TrackScores:
    """Of several videos together: their counts summed, as TrackEval combines sequences."""
    from trackers.eval import aggregate_clear_metrics, aggregate_hota_metrics, aggregate_identity_metrics

    parts = {
        "hota": aggregate_hota_metrics([dict(one.parts["hota"]) for one in scores]),
        "clear": aggregate_clear_metrics([dict(one.parts["clear"]) for one in scores]),
        "identity": aggregate_identity_metrics([dict(one.parts["identity"]) for one in scores]),
    }
    return _scores(parts, sum(one.individuals for one in scores), sum(one.tracks for one in scores))


def _scores(parts: Mapping[str, Mapping[str, Any]], individuals: int, tracks: int) -> TrackScores:
    hota, clear, identity = parts["hota"], parts["clear"], parts["identity"]
    return TrackScores(
        hota=float(hota["HOTA"]),
        deta=float(hota["DetA"]),
        assa=float(hota["AssA"]),
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        switches=int(clear["IDSW"]),
        individuals=individuals,
        tracks=tracks,
        parts=parts,
    )


def read_truth(path: Path, frames: int) -> MotTable:
    """Read ground truth for a video of so many frames (0: unknown).

    Raises:
        DataError: it cannot be read, counts nothing, or goes on after the video.
    """
    truth = read_mot(path)
    if not (truth.scores > 0).any():
        raise DataError(f"{path} counts no box", "it is empty, or every score in it is 0", "name the right file")
    last = int(truth.frames.max())
    if 0 < frames < last:
        why = f"it goes to frame {last}, the video has {frames}"
        raise DataError(f"{path} does not belong to the video", why, "name the right file")
    return truth


def other_classes(truth: MotTable, found: MotTable) -> str:
    """What to tell if the two do not number their classes alike; nothing where they have one in common."""
    true, seen = np.unique(truth.classes), np.unique(found.classes)
    if not len(seen) or _same_class(true, seen).any():
        return ""
    return (
        f"the truth's classes are {true.tolist()} and found were {seen.tolist()}: class 1 is the model's first; "
        "--across-classes compares without classes"
    )


def _same_class(first: Ids, second: Ids) -> npt.NDArray[np.bool_]:
    """``(n, m)``: the same class, or one is not known."""
    return (first[:, None] == second[None]) | (first[:, None] < 0) | (second[None] < 0)


def _on_uncounted(overlap: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``(m,)`` which boxes were found on an object of the truth that is not counted."""
    away = np.zeros(overlap.shape[1], np.bool_)
    rows, columns = linear_sum_assignment(np.where(overlap >= _MATCHED, overlap, 0), maximize=True)
    matched = (overlap[rows, columns] >= _MATCHED) & ~counted[rows]
    away[columns[matched]] = True
    return away


def _by_frame(table: MotTable, frames: int) -> list[npt.NDArray[np.int64]]:
    """The rows of every frame."""
    ends = np.searchsorted(table.frames, np.arange(1, frames + 2))
    return [np.arange(start, stop) for start, stop in itertools.pairwise(ends.tolist())]
