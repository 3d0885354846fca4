"""Starting a detector from the weights of a backbone."""

from __future__ import annotations

import torch
from rich.console import Console

from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models.detector import Detector
from cloverleaf.training.config import ModelConfig
from cloverleaf.weights.backbone import BackboneWeights, describe, input_of, load_backbone


def check_choice(part: ModelConfig) -> None:
    """Refuse two sources for one backbone.

    Raises:
        ConfigError: both are given.
    """
    if part.weights and part.backbone_weights:
        raise ConfigError(
            "--weights and --backbone-weights together",
            "the weights hold a backbone already, and one of the two would have no effect",
            "give one of them",
        )


def take_backbone(model: Detector, part: ModelConfig, say: Console) -> None:
    """Fill the backbone of ``model`` from `model.backbone_weights`, BatchNorm statistics too, and say what fitted.

    Tensors of equal name and shape are taken over; the rest of the backbone, and neck and head, stay as they are.

    Raises:
        CheckpointError: the file cannot be read, or no weight of it fits.
    """
    source = load_backbone(str(part.backbone_weights))
    own = model.backbone.state_dict()
    taken = [name for name, value in own.items() if name in source.state and source.state[name].shape == value.shape]
    weighty = {name for name, value in model.backbone.named_parameters() if value.ndim > 1}
    if not weighty & set(taken):  # counters and the like fit everywhere
        raise CheckpointError(
            f"{part.backbone_weights} does not fit {part.name}",
            f"it holds {describe(source.spec)}, the model has {describe(model.spec.backbone)}, and no weight has the "
            "same name and shape",
            "choose a model with that backbone and its options, or pre-train the backbone of this one",
        )
    with torch.no_grad():
        for name in taken:
            own[name].copy_(source.state[name])
    say.print(_summary(part, source, model, taken), highlight=False, markup=False)


def _summary(part: ModelConfig, source: BackboneWeights, model: Detector, taken: list[str]) -> str:
    own = list(model.backbone.state_dict())
    text = f"backbone from {part.backbone_weights} ({source.origin}): {len(taken)} of {len(own)} tensors taken over"
    if fresh := [name for name in own if name not in set(taken)]:
        text += f"; freshly initialised: {_shortened(fresh)}"
    if left := [name for name in source.state if name not in set(taken)]:
        text += f"; not used: {_shortened(left)}"
    if source.spec != model.spec.backbone:
        text += f" (the weights are of {describe(source.spec)}, the model has {describe(model.spec.backbone)})"
    seen, shown = input_of(source.spec, source.normalisation), input_of(model.spec.backbone)
    if seen != shown:
        text += (
            f"\nnote: the backbone has seen images as {seen}, and is now shown {shown}; "
            "its first BatchNorm has to adapt"
        )
    return text


def _shortened(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
