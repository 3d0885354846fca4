"""The cheapest equal form of a detector: no normalisation layers, no implicit knowledge, no training-only branches."""

from __future__ import annotations

import copy

from cloverleaf.models.detector import Detector


def fuse(model: Detector) -> Detector:
    """A new detector in fused form and evaluation mode; ``model`` is not changed.

    Normalisation is folded into the convolutions with its running statistics and implicit knowledge into the last
    convolution of each level, so that the output equals that of ``model.eval()`` within float rounding. The result can
    be saved and loaded like any model; it is not meant to be trained. A fused model is returned as a copy.
    """
    return copy.deepcopy(model).eval() if model.spec.fused else model.fused()
