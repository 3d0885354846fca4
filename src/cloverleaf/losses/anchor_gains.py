"""How the gains of an anchor-based loss follow from the model, and how its levels are weighed: pure tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from cloverleaf.errors import ConfigError

GainRule = Literal["yolov7", "yolor"]

# By the number of levels, the finest first; for any other number, the first weights of the longest row.
_BALANCE: Mapping[GainRule, Mapping[int, tuple[float, ...]]] = {
    "yolov7": {3: (4.0, 1.0, 0.4), 5: (4.0, 1.0, 0.25, 0.06, 0.02)},
    "yolor": {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.4, 0.1), 5: (4.0, 1.0, 0.5, 0.4, 0.1)},
}
_YOLOR_MANY_LEVELS, _YOLOR_OBJECTNESS = 4, 1.4  # objectness counts more from so many levels on


def level_balance(rule: GainRule, num_levels: int) -> tuple[float, ...]:
    """Weights of the levels in the objectness loss, the finest level first.

    Published for 3, 4 and 5 levels (implementations of YOLOv7, arXiv 2207.02696, and YOLOR, arXiv 2105.04206); other
    numbers, up to 5, take the beginning of the row for 5.

    Raises:
        ConfigError: more levels.
    """
    rows = _BALANCE[rule]
    if num_levels > max(rows):
        raise ConfigError(
            f"the anchor-based loss has no weights for {num_levels} levels",
            f"they were published for up to {max(rows)}",
            "give the backbone fewer stages and model.head.anchors_px fewer levels",
        )
    return rows.get(num_levels, rows[max(rows)][:num_levels])


def gain_scales(rule: GainRule, *, num_levels: int, num_classes: int, image_size: int) -> tuple[float, float, float]:
    """Factors of the box, objectness and class gains, as published.

    Both rules share: every gain falls with the number of levels L (3 / L), the class gain grows with the classes
    (K / 80). YOLOv7's objectness gain grows with the training area against 640 pixels, YOLOR's is 1.4 times as large
    from four levels on and does not depend on the size.
    """
    share = 3 / num_levels
    if rule == "yolor":
        objectness = _YOLOR_OBJECTNESS if num_levels >= _YOLOR_MANY_LEVELS else 1.0
    else:
        objectness = (image_size / 640) ** 2
    return share, share * objectness, share * num_classes / 80
