"""Starting a model from weights that fit it in part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cloverleaf.models.catalog import build_detector
from cloverleaf.models.detector import Detector


@dataclass(frozen=True, slots=True)
class Transfer:
    """Names of the target's tensors, in its order.

    Attributes:
        taken: those that were copied from the source.
        fresh: those that kept their initial values.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]


@torch.no_grad()
def transfer(target: Detector, source: Mapping[str, Tensor], *, anchors: bool = True) -> Transfer:
    """Copy every tensor of ``source`` whose name and shape occur in ``target``, which is changed.

    Args:
        target: keeps its own values where nothing fits.
        source: names and tensors of a detector of ours.
        anchors: take the anchors too; what the head has learned is relative to them.
    """
    own = target.state_dict()
    taken = []
    for name, value in own.items():
        fits = name in source and source[name].shape == value.shape
        if fits and (anchors or not name.endswith(".anchors_px")):
            value.copy_(source[name])
            taken.append(name)
    return Transfer(tuple(taken), tuple(name for name in own if name not in taken))


def with_num_classes(model: Detector, num_classes: int, *, seed: int = 0) -> tuple[Detector, Transfer]:
    """A detector for another number of classes: what depends on it starts anew, everything else is kept.

    For anchor heads that is the last convolution of each level (box and objectness outputs too, which share its
    tensors), the implicit factor after it, and the same of the auxiliary head.

    Args:
        model: in any form; not changed.
        num_classes: K, at least 1.
        seed: of the new initial values.

    Returns:
        The new detector in the form and mode of ``model``, without class names and metrics, and what was kept.

    Raises:
        ConfigError: the number of classes is below 1.
    """
    spec = replace(model.current_spec(), num_classes=num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed = build_detector(spec)
    result = transfer(changed, model.state_dict())
    if model.metadata is not None:
        changed.metadata = replace(model.metadata, class_names=(), category_ids=None, metrics={})
    return changed.train(model.training), result
