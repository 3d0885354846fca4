"""What necks that join neighbouring levels ask of a backbone, and the widths of their outputs."""

from __future__ import annotations

from collections.abc import Sequence

from cloverleaf.errors import ConfigError
from cloverleaf.layers.style import scale_width
from cloverleaf.structures import FeatureSpec


def doubling_levels(neck: str, features: FeatureSpec, finest: int) -> FeatureSpec:
    """The levels of a backbone from the stride ``finest`` on.

    Args:
        neck: its type, for messages.
        features: of the backbone.
        finest: 8 takes what there is from stride 8 on; 4 wants a map of stride 4.

    Raises:
        ConfigError: there are fewer than two, their strides do not double, or stride 4 is wanted and not there.
    """
    levels = features.since(finest)
    if len(levels) < 2 or any(b != 2 * a for a, b in zip(levels.strides, levels.strides[1:], strict=False)):
        raise ConfigError(
            f"neck {neck!r} does not fit its backbone",
            f"it joins two or more levels whose strides double, got strides {levels.strides}",
            "choose a backbone whose strides double from level to level",
        )
    if finest < 8 and levels.strides[0] > finest:
        raise ConfigError(
            f"neck.finest = {finest} does not fit the backbone",
            f"its finest map has stride {levels.strides[0]}",
            f"set model.backbone.finest={finest}, where the backbone has that option, or take one that gives such maps",
        )
    return levels


def check_widths(name: str, given: Sequence[int] | None, levels: FeatureSpec) -> None:
    """Raise `ConfigError` unless ``given`` is None or has one width per level."""
    if given is not None and len(given) != len(levels):
        raise ConfigError(
            f"neck.{name} has {len(given)} widths", f"the backbone has {len(levels)} levels",
            "give one width per level, finest first, or null for widths that follow from the backbone",
        )  # fmt: skip


def output_widths(given: tuple[int, ...] | None, width: float, levels: FeatureSpec) -> tuple[int, ...]:
    """Those ``given``, or those of the ``levels``, times ``width``; errors as `check_widths`."""
    check_widths("channels", given, levels)
    return tuple(scale_width(c, width) for c in given or levels.channels)
