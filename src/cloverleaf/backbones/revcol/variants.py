"""Named sizes of RevCol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloverleaf.backbones.revcol.backbone import RevColSpec

_LARGE = RevColSpec(channels=(128, 256, 512, 1024), layers=(1, 2, 6, 2), columns=8, drop_path=0.5)

# Published for classification (arXiv 2212.11696, table 9 and the published configurations).
PUBLISHED: Mapping[str, RevColSpec] = {
    "revcol-tiny": RevColSpec(drop_path=0.1),
    "revcol-small": RevColSpec(columns=8, drop_path=0.3),
    "revcol-base": RevColSpec(channels=(72, 144, 288, 576), layers=(1, 1, 3, 2), columns=16, drop_path=0.4),
    "revcol-large": _LARGE,
    "revcol-xlarge": replace(_LARGE, channels=(224, 448, 896, 1792)),
    "revcol-huge": replace(_LARGE, channels=(360, 720, 1440, 2880), far_fusion=True),
}

# For detectors: about 1, 2.5, 7 and 20 million parameters (docs/decisions/revcol-sizes.md).
DETECTOR_SIZED: Mapping[str, RevColSpec] = {
    "revcol-pico": RevColSpec(channels=(16, 32, 64, 128), layers=(1, 1, 2, 1)),
    "revcol-nano": RevColSpec(channels=(24, 48, 96, 192), layers=(1, 1, 2, 1)),
    "revcol-lite": RevColSpec(channels=(40, 80, 160, 320), layers=(1, 1, 2, 1)),
    "revcol-medium": RevColSpec(channels=(72, 144, 288, 576), layers=(1, 1, 2, 1)),
}

# The same sizes for real time: RepVGG blocks, which are plain convolutions once folded, at less than half the latency.
REAL_TIME: Mapping[str, RevColSpec] = {
    f"{name}-rep": replace(spec, layers=(1, 1, 1, 1), block="rep") for name, spec in DETECTOR_SIZED.items()
}

VARIANTS: Mapping[str, RevColSpec] = {**PUBLISHED, **DETECTOR_SIZED, **REAL_TIME}
