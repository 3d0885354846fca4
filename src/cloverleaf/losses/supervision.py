"""The compound loss of intermediate supervision (arXiv 2212.11696, section 2.3), around the loss of any head."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.losses.distillation import Lesson
from cloverleaf.losses.output import LossOutput
from cloverleaf.ops.precision import at_least_float32
from cloverleaf.structures import AuxiliaryOutput, SupervisedOutput, Targets

DARKEST, BRIGHTEST = 0.01, 0.99  # of what reconstructions are compared with


@dataclass(frozen=True, slots=True)
class SourceWeights:
    """How much the losses of one source of supervision count, where the loss of the model's head counts 1.

    Attributes:
        raw: of what its head predicts.
        image: of its reconstruction.
    """

    raw: float = 0.0
    image: float = 0.0


def compound_weights(sources: int, falling: float, rising: float) -> tuple[SourceWeights, ...]:
    """Weights of the earlier columns, the earliest first: to see first, then to know.

    With n sources and the last column after them, source i = 0, 1, ... has ``falling * (1 - i / n)`` for its
    reconstruction and ``rising * (i + 1) / (n + 1)`` for its head, constant over training, as published.
    """
    return tuple(
        SourceWeights(raw=rising * (i + 1) / (sources + 1), image=falling * (1 - i / sources)) for i in range(sources)
    )


def reconstruction_target(images: Tensor) -> Tensor:
    """``images``, of any shape, in [0, 1] -> the same in [0.01, 0.99], so that no logit need be infinite."""
    return at_least_float32(images).clamp(DARKEST, BRIGHTEST)


def reconstruction_loss(logits: Tensor, images: Tensor, covered: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of a reconstruction against `reconstruction_target`, summed over pixels and colours.

    Args:
        logits: ``(B, 3, H, W)``.
        images: ``(B, 3, H, W)`` in [0, 1].
        covered: ``(B, H, W)`` bool, the pixels that count; None for all.
    """
    target = reconstruction_target(images)
    if covered is None:
        return F.binary_cross_entropy_with_logits(at_least_float32(logits), target, reduction="sum")
    loss = F.binary_cross_entropy_with_logits(at_least_float32(logits), target, reduction="none")
    return (loss * covered[:, None]).sum()


class SupervisedCriterion(nn.Module):
    """The loss of a model's head, plus weighted losses of what supervises it further.

    These are "aux", the same loss for other heads, and "rec", the mean over pixels and colours of the cross-entropy of
    reconstructions; padding does not count where the targets say what it is. Output without further supervision, as in
    evaluation, has the loss of the head. In a distributed run reconstructions have the mean over the global batch.

    Args:
        main: criterion of the model's head, a module.
        light: the same for the further heads.
        weights: of each source.
        reduce: sums a tensor over the processes of a distributed run; None in a single process.
    """

    main: Any

    def __init__(
        self,
        main: Any,
        light: Any,
        weights: Sequence[SourceWeights],
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.main, self.weights, self.reduce = main, tuple(weights), reduce
        self._light = (light,)  # in a tuple, as it shares the state of `main`

    @property
    def light(self) -> Any:
        """Criterion of the further heads."""
        return self._light[0]

    def around(self, main: Any, light: Any) -> SupervisedCriterion:
        """The same with other criteria."""
        other = copy.copy(self)
        other._modules = {**self._modules, "main": main}
        other._light = (light,)
        return other

    def forward(self, raw: Any, targets: Targets, size_hw: tuple[int, int], lesson: Lesson | None = None) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: a `SupervisedOutput`, or output of the head alone.
            targets: ground truth in input pixels.
            size_hw: network-input size.
            lesson: what a teacher says, for criteria that take it.
        """
        further = () if lesson is None else (lesson,)
        if not isinstance(raw, SupervisedOutput):
            alone: LossOutput = self.main(raw, targets, size_hw, *further)
            return alone
        loss: LossOutput = self.main(raw.final, targets, size_hw, *further)
        total, items = loss.total, dict(loss.items)
        pairs = list(zip(self.weights, raw.auxiliary, strict=True))
        heads = [(w.raw, self.light(source.raw, targets, size_hw)) for w, source in pairs if source.raw is not None]
        if heads:
            total = total + torch.stack([weight * of_head.total for weight, of_head in heads]).sum()
            items["aux"] = torch.stack([w * part for w, of_head in heads for part in of_head.items.values()]).sum()
        if any(source.image is not None for source in raw.auxiliary):
            share = self._reconstruction(pairs, raw.images, targets.covered)
            total = total + share * loss.factor
            items["rec"] = self._reduced(share.detach())
        return LossOutput(total, items, loss.factor)

    def _reconstruction(
        self, pairs: Sequence[tuple[SourceWeights, AuxiliaryOutput]], images: Tensor, covered: Tensor | None
    ) -> Tensor:
        """This process's share of the weighted mean."""
        count = images.new_tensor(images.numel()) if covered is None else covered.sum() * images.shape[1]
        with torch.autocast(images.device.type, enabled=False):
            sums = [
                weight.image * reconstruction_loss(source.image, images, covered)
                for weight, source in pairs
                if source.image is not None
            ]
            total = torch.stack(sums).sum()
            return total / self._reduced(count).to(total).clamp(min=1)

    def _reduced(self, value: Tensor) -> Tensor:
        return value if self.reduce is None else self.reduce(value)
