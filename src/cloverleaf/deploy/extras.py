"""Packages of the `deploy` extra: imported where they are used, and missed politely."""

from __future__ import annotations

import importlib
from types import ModuleType

from cloverleaf.errors import MissingExtraError


def require(*names: str) -> ModuleType:
    """The module ``names[0]``, once all of ``names`` can be imported.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"{name} is needed for exported models", str(error), "pip install 'cloverleaf[deploy]'"
            ) from error
    return importlib.import_module(names[0])
