"""The one look of all figures and pictures: colours that colour-blind readers can tell apart, quiet axes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Okabe and Ito's palette without its black and its pale yellow, then darker and paler relatives for more classes.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#7A5195", "#8C6D1F", "#2F4B7C", "#A8B400", "#B03060", "#5F9EA0"),
)
INK, MUTED, GRID = "#1f2933", "#66737f", "#dfe4e8"
SEQUENTIAL = "Blues"  # light for little, dark for much

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "figure.facecolor": "white",
    "figure.dpi": 130,
    "axes.facecolor": "white",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """A ``matplotlib`` figure of ``width`` x ``height`` inches in the house style, written to ``path`` at the end.

    No global state: the backend, open figures and settings of the calling program stay as they are.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_RC):
        drawing = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path)


def colour(index: int) -> str:
    """Colour of a class or a line, repeated after the last."""
    return COLOURS[index % len(COLOURS)]


def printable(names: tuple[str, ...] | list[str], *, longest: int = 22) -> list[str]:
    """Names for figures: shortened, and ``class 3`` where the bundled font has no letters for the script."""
    shown = []
    for index, name in enumerate(names):
        text = (
            name if name.isprintable() and name and all(ord(letter) < 0x0590 for letter in name) else f"class {index}"
        )
        shown.append(text if len(text) <= longest else text[: longest - 1] + "…")
    return shown


def save_picture(path: Path, image: Any) -> None:
    """Write an (H, W, 3) uint8 RGB array as PNG or JPEG, by the suffix."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix, image[:, :, ::-1])[1]
    path.write_bytes(data.tobytes())
