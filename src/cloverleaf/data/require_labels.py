"""Refuse a dataset without image-level labels or identities where they are to be learned."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import DataError

_OFF = "switch the task off with --set model.head.{task}=false, or use --task detect"


def require_tags(index: DetectionIndex) -> None:
    """Raise `DataError` where no image of the split has an image-level label."""
    if not index.tag_names:
        raise DataError(
            f"{index.source} has no image tags",
            f"its {index.format.upper()} annotations declare none, and --task multi learns them",
            f'add them to COCO files ("tags" at the top level and ids on images), or {_OFF.format(task="tags")}',
        )
    if not _has_tags(index):
        raise DataError(
            f"no image of split {index.split!r} of {index.source} has a tag",
            f"{len(index.tag_names)} tags are declared, and --task multi learns them",
            f'give images the ids of their tags (COCO, "tags"), or {_OFF.format(task="tags")}',
        )


def require_same_tags(names: Sequence[str], *splits: DetectionIndex) -> None:
    """Raise `DataError` where a split has tags, and not these in this order; without ``names`` nothing is known."""
    for index in splits if names else ():
        if index.tag_names and index.tag_names != tuple(names):
            raise DataError(
                f"split {index.split!r} of {index.source} has other tags",
                f"it declares {_some(index.tag_names)}, and {_some(names)} are to be known, in this order",
                'declare the same "tags" in the same order in all splits; to keep those of weights, use their data',
            )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


def require_judged(tasks: Collection[str], index: DetectionIndex) -> None:
    """Raise `DataError` where a split has labels for none of ``tasks``, of boxes, tags and embeddings."""
    judged = {"boxes": lambda _: True, "tags": _has_tags, "embeddings": _somebody_again}
    if not any(judged[task](index) for task in tasks):
        labels = {"tags": "give its images tags", "embeddings": "give objects an identity that is seen in two images"}
        raise DataError(
            f"split {index.split!r} of {index.source} has no labels for {' or '.join(tasks)}",
            "nothing else is learned, so no epoch could be judged and the best weights not be chosen",
            f"{', or '.join(labels[task] for task in tasks)}; or learn boxes as well",
        )


def _has_tags(index: DetectionIndex) -> bool:
    return any(tags.any() for i in range(len(index)) if (tags := index.tags(i)) is not None)


def _somebody_again(index: DetectionIndex) -> bool:
    """Whether an individual is in two images."""
    image = np.repeat(np.arange(len(index)), np.diff(index.object_offsets))
    known = ~index.crowd & (index.identities >= 0)
    sights = np.unique(np.stack([index.identities[known], image[known]]), axis=1)
    return len(np.unique(sights[0])) < sights.shape[1]


def individuals(index: DetectionIndex) -> tuple[int, ...]:
    """The identities that objects of the split have, ascending; crowds do not count."""
    known = index.identities[~index.crowd]
    return tuple(np.unique(known[known >= 0]).tolist())


def require_identities(index: DetectionIndex) -> None:
    """Raise `DataError` unless objects of the split have at least two different identities."""
    found = len(individuals(index)) if index.has_identities else 0
    if found >= 2:
        return
    raise DataError(
        f"split {index.split!r} of {index.source} has no identities"
        if not found
        else f"split {index.split!r} of {index.source} has one individual only",
        "embeddings are learned by telling individuals apart",
        f'give objects an "identity" (COCO), the same number wherever one is seen again, or '
        f"{_OFF.format(task='embeddings')}",
    )
