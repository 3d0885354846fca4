"""Scores of tracks as a table."""

from __future__ import annotations

from collections.abc import Mapping

from cloverleaf.tracking.scores import TrackScores

_SHARES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "recall", "precision")


def print_scores(scores: Mapping[str, TrackScores]) -> None:
    """A row per video, shares in percent."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("video", no_wrap=True)
    for name in (*_SHARES, "switches", "tracks", "individuals"):
        table.add_column(name, justify="right", no_wrap=True)
    for video, one in scores.items():
        shares = [f"{100 * getattr(one, name.lower()):.1f}" for name in _SHARES]
        table.add_row(video, *shares, str(one.switches), str(one.tracks), str(one.individuals))
    Console(width=max(100, Console().width)).print(table)
