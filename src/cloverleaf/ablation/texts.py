"""Numbers as they stand in a table."""

from __future__ import annotations

import math

from cloverleaf.ablation.statistics import Spread


def mean_text(found: Spread) -> str:
    """``0.512 ± 0.008``."""
    if not found.n:
        return "-"
    return number(found.mean) + (f" ± {found.sd:.3f}" if math.isfinite(found.sd) else "")


def number(value: float | None) -> str:
    """Three decimals, a dash where undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def p_text(p: float) -> str:
    """Three decimals, but never 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count_text(count: int) -> str:
    """``6.23 M``, or ``98.1 k`` below a tenth of a million."""
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def clock(seconds: float) -> str:
    """``2:41`` minutes and seconds, ``1:02:41`` with hours; a dash where unknown."""
    if math.isnan(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
