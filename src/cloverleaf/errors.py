"""Errors a user can act on: what failed, why, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CloverleafError(Exception):
    """Base of every error that Cloverleaf raises for its user; the command line prints it without a traceback.

    Args:
        what: what went wrong, with the file, line or key that it concerns.
        why: the reason, with expected and found values.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.fix:
            text += f". {self.fix[0].upper()}{self.fix[1:]}"
        return text


class ConfigError(CloverleafError):
    """A configuration value, key or command-line option is wrong."""


class DataError(CloverleafError):
    """A dataset or an annotation file cannot be used as it is."""


class ImageError(DataError):
    """One image cannot be decoded or is of a kind that is refused."""


class CheckpointError(CloverleafError):
    """A weights file or a state dict does not fit, is damaged or is not what it claims to be."""


class ExportError(CloverleafError):
    """A model cannot be exported, or the file does not compute what the model computes."""


class UnknownModelError(CloverleafError):
    """No model of that name."""


class MissingExtraError(CloverleafError):
    """An optional package is needed; the message names the extra that installs it."""


def suggest(name: str, known: Iterable[str]) -> str:
    """A 'did you mean' clause for ``fix`` texts: the nearest of ``known``, or all of them when few."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"valid: {shown}"
