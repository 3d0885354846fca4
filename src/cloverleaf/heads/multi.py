"""Boxes, image tags and embeddings from the same maps (arXiv 2105.04206, section 3; embeddings as in 1909.12605)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.heads.task_implicit import TaskImplicit, aligned_boxes, task_implicit
from cloverleaf.layers.implicit import ImplicitOptions, absorbed, maybe_implicit, width_behind
from cloverleaf.layers.style import Activation, Style
from cloverleaf.structures import FeatureSpec, MultiOutput

BoxHeadSpec = Annotated[AnchorHeadSpec | DenseHeadSpec, Field(discriminator="type")]
Count = Annotated[int, Field(ge=1)]
DIM = 128
OF_BRANCH: Mapping[str, tuple[str, ...]] = {
    "tags": ("num_tags",),
    "embeddings": ("num_identities", "identity_scale", "embedding_dim"),
}
"""Options that only one branch has."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiHeadSpec:
    """Options of `MultiHead`.

    Attributes:
        boxes: options of its head for boxes, `anchor` or `dense`.
        tags: predict image-level labels. Without tags and embeddings it is a detector, judged beside those with them.
        embeddings: predict a vector for every object that tells individuals apart.
        num_tags: T; the data decide it in training; None for as many as there are classes.
        num_identities: individuals that are told apart in training; the data decide it; 0 without a classifier.
        embedding_dim: D.
        implicit: the canonical representation of each task, at the start of its branch: `task` of all tasks, `boxes`,
            `tags` and `embeddings` of one of them or `none`; true for an addend of all, false for none.
        identity_scale: factor on embeddings of length 1 before they are classified: a number, `learned`, or None for
            sqrt(2) ln(I - 1).
        log_variances: learn a log-variance of each task; `loss.multi.balance=uncertainty` sets it in training.
        activation: of the branches for tags and embeddings.
    """

    task: ClassVar[Literal["multi"]] = "multi"
    type: Literal["multi"] = "multi"
    boxes: BoxHeadSpec = Field(default_factory=AnchorHeadSpec)
    tags: bool = True
    embeddings: bool = True
    num_tags: Count | None = None
    num_identities: Annotated[int, Field(ge=0)] = 0
    embedding_dim: Annotated[int, Field(ge=2, le=4096)] = DIM
    implicit: Annotated[TaskImplicit, task_implicit] = Field(default_factory=TaskImplicit)
    identity_scale: Annotated[float, Field(gt=0)] | Literal["learned"] | None = None
    log_variances: bool = False
    activation: Activation = "silu"

    def build(self, features: FeatureSpec, num_classes: int) -> MultiHead:
        """The module for a neck's ``features``, freshly initialised.

        Raises:
            ConfigError: options of a branch that it does not have.
        """
        _check(self)
        return MultiHead(self, features, num_classes)

    def deployed(self) -> MultiHeadSpec:
        """The same head without what only training needs."""
        return replace(
            self, boxes=self.boxes.deployed(), num_identities=0, implicit=TaskImplicit(task=None), identity_scale=None,
            log_variances=False,
        )  # fmt: skip

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is learned: `boxes`, and `tags` and `embeddings` as far as it has them."""
        return ("boxes", *(["tags"] if self.tags else []), *(["embeddings"] if self.embeddings else []))


class TaskConv(nn.Module):
    """The start of a task's branch: act(conv(task(x))), a 1x1 convolution with bias and without norm.

    A norm would take away again what is added to all positions alike.

    Attributes:
        task: the task's implicit representation, or nothing.
        conv: keeps the width.
    """

    def __init__(self, channels: int, style: Style, implicit: ImplicitOptions | None) -> None:
        super().__init__()
        self.task = maybe_implicit(implicit, channels)
        self.conv = nn.Conv2d(width_behind(self.task, channels), channels, 1)
        self.act = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return self.act(self.conv(self.task(x)))

    def deploy(self) -> None:
        """Fold the implicit representation into the convolution, in place."""
        self.conv, self.task = absorbed(self.conv, before=self.task), nn.Identity()


class TagBranch(nn.Module):
    """Logits of image-level labels from the coarsest map: convolution, mean over positions, linear layer."""

    def __init__(self, channels: int, num_tags: int, style: Style, implicit: ImplicitOptions | None) -> None:
        super().__init__()
        self.start = TaskConv(channels, style, implicit)
        self.linear = nn.Linear(channels, num_tags)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, T)``."""
        return self.linear(self.start(x).mean((2, 3)))


class EmbeddingLevel(nn.Module):
    """The embedding map of one level: two 1x1 convolutions."""

    def __init__(self, channels: int, dim: int, style: Style, implicit: ImplicitOptions | None) -> None:
        super().__init__()
        self.start = TaskConv(channels, style, implicit)
        self.project = nn.Conv2d(channels, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, D, H, W)``, not normalised."""
        return self.project(self.start(x))


class IdentityClassifier(nn.Module):
    """Which individual of the training data an embedding belongs to; only training needs it (arXiv 1909.12605).

    Attributes:
        ids: buffer ``(I,)`` int64, ascending: the identity of each individual in the data; -1 while not known.
        scale: factor on the embeddings.
    """

    ids: Tensor

    def __init__(self, dim: int, num_identities: int, scale: float | Literal["learned"] | None) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, num_identities)
        start = math.sqrt(2) * math.log(max(num_identities - 1, 2)) if scale in (None, "learned") else float(scale)
        value = torch.tensor(start)
        if scale == "learned":
            self.scale: Tensor = nn.Parameter(value)
        else:
            self.register_buffer("scale", value, persistent=False)
        self.register_buffer("ids", torch.full((num_identities,), -1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """``(n, D)`` of length 1 -> ``(n, I)`` logits."""
        return self.linear(embeddings * self.scale)

    @torch.no_grad()
    def set_ids(self, ids: Sequence[int]) -> None:
        """Say which identities the individuals have in the data: ``I`` numbers from 0, ascending."""
        self.ids.copy_(torch.tensor(ids, dtype=torch.int64))

    def places(self, identities: Tensor) -> Tensor:
        """``(n,)`` identities of the data -> their place in [0, I), and -1 for those that it does not know."""
        place = torch.searchsorted(self.ids, identities).clamp(max=len(self.ids) - 1)
        return torch.where(self.ids[place] == identities, place, -1).where(identities >= 0, -1)


class MultiHead(nn.Module):
    """A head for boxes, and beside it branches for tags and embeddings.

    Attributes:
        num_classes: K.
        strides: input pixels per cell of each level.
        boxes: the head for boxes.
        tags: a `TagBranch`, or None.
        embeddings: one `EmbeddingLevel` per level, or None.
        identities: an `IdentityClassifier`; None without embeddings, and where nothing is trained.
        log_variances: of each task, or None.
    """

    def __init__(self, spec: MultiHeadSpec, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        style, implicit = Style(activation=spec.activation), spec.implicit
        self.boxes: Any = aligned_boxes(spec.boxes, spec.implicit).build(features, num_classes)
        self.num_classes, self.strides = num_classes, features.strides
        self.tags = (
            TagBranch(features.channels[-1], spec.num_tags or num_classes, style, implicit.of("tags"))
            if spec.tags
            else None
        )
        self.embeddings = (
            nn.ModuleList(
                EmbeddingLevel(channels, spec.embedding_dim, style, implicit.of("embeddings"))
                for channels in features.channels
            )
            if spec.embeddings
            else None
        )
        self.identities = (
            IdentityClassifier(spec.embedding_dim, spec.num_identities, spec.identity_scale)
            if spec.num_identities
            else None
        )
        self.log_variances = (
            nn.ParameterDict({task: nn.Parameter(torch.tensor(_start(spec, task))) for task in spec.tasks})
            if spec.log_variances
            else None
        )

    def forward(self, features: Sequence[Tensor]) -> MultiOutput:
        """Maps ``(B, C_l, H_l, W_l)``, finest first; further ones are for an auxiliary head for boxes."""
        own = features[: len(self.strides)]
        return MultiOutput(
            self.boxes(features),
            None if self.tags is None else self.tags(own[-1]),
            None if self.embeddings is None else tuple(map(_call, self.embeddings, own)),
            None if self.log_variances is None else dict(self.log_variances.items()),
        )

    def decode(self, raw: MultiOutput, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes ``(B, N, 4)`` xyxy in input pixels and scores ``(B, N, K)``, by the head for boxes."""
        boxes, scores = self.boxes.decode(raw.boxes, size_hw)
        return boxes, scores

    def deploy(self) -> None:
        """Fold implicit representations and drop what only training needs, in place."""
        self.boxes.deploy()
        for module in self.modules():
            if isinstance(module, TaskConv):
                module.deploy()
        self.identities = self.log_variances = None


def _start(spec: MultiHeadSpec, task: str) -> float:
    """Where a log-variance starts: near the logarithm of the loss of a fresh model, so that tasks weigh alike."""
    if task == "boxes":
        return -2.0 if spec.boxes.type == "anchor" else 1.0
    return math.log(0.5) if task == "tags" else math.log(math.log(max(spec.num_identities, 3)))


def _call(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def _check(spec: MultiHeadSpec) -> None:
    for task, names in OF_BRANCH.items():
        if getattr(spec, task):
            continue
        given = {name: value for name in names if (value := getattr(spec, name)) not in (None, 0, DIM)}
        if (own := getattr(spec.implicit, task)) not in (None, "none"):
            given[f"implicit.{task}"] = own.operator
        for name, value in given.items():
            raise ConfigError(
                f"model.head.{name} = {value!r} has no effect", f"the head has no {task}",
                f"leave it out, or set model.head.{task}=true",
            )  # fmt: skip
