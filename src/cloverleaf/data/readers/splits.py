"""Names of splits, as people write them in file and folder names."""

from __future__ import annotations

import re

ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_WORDS = "|".join(sorted(_CANONICAL, key=len, reverse=True))
_TOKEN = re.compile(rf"(?:^|[^a-z])({_WORDS})(?:\d{{4}})?(?:$|[^a-z0-9])")


def canonical_split(name: str) -> str:
    """`valid` -> `val`, `train2017` -> `train`; other names unchanged."""
    return _CANONICAL.get(re.sub(r"\d{4}$", "", name.lower()), name)


def split_in_name(stem: str) -> tuple[str, int, tuple[str, str]] | None:
    """The split that a file name speaks of: (split, rank, (text before, text after)); None if it names none.

    Rank 0 is the bare name (`train`), 1 COCO's own `instances_train2017`, 2 anything else that has the word.
    """
    lowered = stem.lower()
    found = _TOKEN.search(lowered)
    if found is None:
        return None
    around = (stem[: found.start(1)], re.sub(r"^\d{4}", "", stem[found.end(1) :]))
    rank = 0 if around == ("", "") else 1 if around == ("instances_", "") else 2
    return _CANONICAL[found[1]], rank, around


def in_order(names: list[str]) -> list[str]:
    """train, val, test first, then the others by name."""
    first = {name: position for position, name in enumerate(("train", "val", "test"))}
    return sorted(names, key=lambda name: (first.get(name, 9), name))
