"""Text that the fonts at hand can write."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

FONT = cv2.FONT_HERSHEY_SIMPLEX
_LETTERS = 0x0590  # Latin, Greek, Cyrillic and Armenian stand below; DejaVu Sans, which matplotlib brings, has them


def shortened(text: str, longest: int) -> str:
    """``text``, or its beginning and an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(names: Sequence[str], *, longest: int = 22) -> list[str]:
    """Names for figures: shortened, and ``class 3`` where the bundled font has no letters for the script."""
    shown = []
    for k, name in enumerate(names):
        good = bool(name) and name.isprintable() and all(ord(letter) < _LETTERS for letter in name)
        shown.append(shortened(name if good else f"class {k}", longest))
    return shown


def writable(text: str) -> str:
    """``text`` if OpenCV's built-in fonts, which are ASCII before version 5, can write it, else nothing."""
    ascii_only = int(cv2.__version__.split(".")[0]) < 5
    return text if text.isprintable() and (text.isascii() or not ascii_only) else ""


def label_texts(names: Sequence[str], labels: Sequence[int], *, longest: int = 24) -> list[str]:
    """What stands beside objects in a photograph: the class name, or ``class 3`` where it cannot be written."""
    shown = {label: writable(names[label]) or f"class {label}" for label in set(labels)}
    short = {k: text if len(text) <= longest else text[: longest - 2] + ".." for k, text in shown.items()}
    return [short[label] for label in labels]
