"""Packages of the `track` extra: imported where they are used, and missed politely."""

from __future__ import annotations

import importlib

from cloverleaf.errors import MissingExtraError


def require_trackers() -> None:
    """See that the tracking library can be imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        importlib.import_module("trackers")
    except ImportError as error:
        raise MissingExtraError(
            "trackers is needed to track", str(error), "pip install 'cloverleaf[track]', see docs/tracking.md"
        ) from error
