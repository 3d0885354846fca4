"""The criterion of several tasks on one representation: what each task costs, and how they are weighed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cloverleaf.losses.held_head import HeldHeadCriterion
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.losses.output import LossOutput
from cloverleaf.ops.embeddings import sample_embeddings
from cloverleaf.structures import MultiOutput, Targets


class Identities(Protocol):
    """What is used of the classifier of individuals."""

    def places(self, identities: Tensor) -> Tensor:
        """``(n,)`` identities of the data to classes; -1 for unknown ones."""

    def __call__(self, embeddings: Tensor) -> Tensor:
        """``(n, D)`` to ``(n, I)`` logits."""


class SharedHead(Protocol):
    """What is used of the head of the model under training."""

    @property
    def strides(self) -> Sequence[int]:
        """Input pixels per cell of each level."""

    @property
    def identities(self) -> Identities | None:
        """None without embeddings."""


def tag_loss(logits: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of image-level labels.

    Args:
        logits: ``(B, T)``.
        tags: ``(B, T)`` in {0, 1}; NaN where it is not known, which does not count.

    Returns:
        The sum over the tags that count, and their number as a float.
    """
    known = ~tags.isnan()
    wanted = tags.to(torch.float32).nan_to_num(0.0)
    loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, known.float(), reduction="sum")
    return loss, known.sum().to(loss)


def identity_loss(raw: MultiOutput, targets: Targets, head: SharedHead) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the individuals over the embeddings at the centres of the true boxes (arXiv 1909.12605).

    Args:
        raw: with embedding maps.
        targets: objects without identity (-1), or with one that the classifier does not know, do not count.
        head: its classifier and strides.

    Returns:
        The sum over the objects that count, which keeps the graph where there are none, and their number as a float.
    """
    assert raw.embeddings is not None and head.identities is not None
    device = raw.embeddings[0].device
    if targets.identities is None:
        places = torch.full((len(targets),), -1, device=device)
    else:
        places = head.identities.places(targets.identities)
    known = places >= 0
    rows = sample_embeddings(raw.embeddings, head.strides, targets.boxes_xyxy[known], targets.image_index[known])
    loss = F.cross_entropy(head.identities(rows).float(), places[known], reduction="sum")
    return loss, known.sum().to(loss)


class MultiCriterion(HeldHeadCriterion[MultiLossConfig, SharedHead]):
    """The losses of boxes, image tags and identities, weighed by a stated rule.

    Each task's loss is a mean over the global batch: L_boxes is the sum of the items of the criterion for boxes,
    without the factor by which that grows with the batch, L_tags the mean over the known tags of all images, and
    L_embeddings the mean over the objects with an identity. With `fixed` balance the total is ``sum_t gain_t L_t``;
    with `uncertainty` ``sum_t (exp(-s_t) L_t + s_t) / 2`` (arXiv 1705.07115), where a task that the batch has nothing
    to learn from does not count; both times the factor of the criterion for boxes (docs/fidelity.md, entry 186).

    Items are those for boxes, "tag" and "id": times their gains if these are fixed, else as they are.

    Args:
        config: rule and gains, none of them None.
        boxes: criterion of the head for boxes.
        head: of the model under training, a `MultiHead`; no part of this module.
        reduce: sums a tensor over the processes of a distributed run; None in a single process.
    """

    def __init__(
        self, config: MultiLossConfig, *, boxes: Any, head: Any, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(config, head=head, reduce=reduce)
        self.boxes = boxes

    def around(self, boxes: Any) -> MultiCriterion:
        """The same with another criterion for boxes."""
        other = copy.copy(self)
        other._modules = {**self._modules, "boxes": boxes}
        return other

    def forward(self, raw: MultiOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head, with log-variances where the balance is `uncertainty`.
            targets: ground truth in input pixels, with tags and identities as far as they are learned.
            size_hw: network-input size.
        """
        config, parts, items = self.config, dict[str, Tensor](), dict[str, Tensor]()
        device = targets.boxes_xyxy.device
        own = torch.tensor(float(targets.num_images), device=device)
        images = self._reduced(own)
        counts = {"boxes": images}
        factor: Tensor | float = images / getattr(self.boxes.config, "nominal_batch", 1)
        with torch.autocast(device.type, enabled=False):
            if config.boxes:
                of_boxes = self.boxes(raw.boxes, targets, size_hw)
                factor, parts["boxes"], items = of_boxes.factor, of_boxes.total / of_boxes.factor, of_boxes.items
            if config.tags and raw.tags is not None:
                assert targets.tags is not None, "the data have no tags"
                parts["tags"], counts["tags"] = self._mean(*tag_loss(raw.tags, targets.tags))
            if config.embeddings and raw.embeddings is not None:
                parts["embeddings"], counts["embeddings"] = self._mean(*identity_loss(raw, targets, self.head))
            weighed = self._weighed(parts, raw.log_variances, {t: (counts[t] > 0) * own / images for t in parts})
        whole = {"tag": "tags", "id": "embeddings"}
        named = {name: self._reduced(parts[task].detach()) for name, task in whole.items() if task in parts}
        return LossOutput(weighed * factor, self._as_weighed({**items, **named}), factor)

    def _weighed(
        self, parts: Mapping[str, Tensor], log_variances: Mapping[str, Tensor] | None, shares: Mapping[str, Tensor]
    ) -> Tensor:
        """The sum of the tasks.

        Args:
            parts: this process's shares of the losses.
            log_variances: by task, or None.
            shares: how much of each log-variance this process adds, the processes together 1, or 0 where the batch has
                nothing to learn the task from.
        """
        if self.config.balance == "fixed":
            return torch.stack([getattr(self.config, task) * loss for task, loss in parts.items()]).sum()
        assert log_variances is not None
        return torch.stack([
            ((-log_variances[task]).exp() * loss + log_variances[task] * shares[task]) / 2
            for task, loss in parts.items()
        ]).sum()  # fmt: skip

    def _as_weighed(self, items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.config.balance != "fixed":
            return dict(items)
        tasks = {"tag": "tags", "id": "embeddings"}
        return {name: value * getattr(self.config, tasks.get(name, "boxes")) for name, value in items.items()}

    def _mean(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """This process's share of the mean over all processes, and the number that it is a mean of."""
        whole = self._reduced(count)
        return total / whole.clamp(min=1), whole

    def _reduced(self, value: Tensor) -> Tensor:
        return value if self.reduce is None else self.reduce(value)
