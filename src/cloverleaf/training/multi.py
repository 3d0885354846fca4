"""What runs of several tasks need besides: a head around that of the model, what the data decide of it, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.require_labels import individuals, require_identities, require_tags
from cloverleaf.errors import ConfigError
from cloverleaf.heads.multi import MultiHeadSpec
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.models import parts
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.multi_criterion import learned_tasks
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.training.config import ModelConfig, TrainConfig

FOUND = ("num_tags", "num_identities", "log_variances")  # options of the head that follow from data and loss


def with_several_tasks(model: ModelConfig) -> ModelConfig:
    """``model`` with the head `multi` around its own, if that is one for boxes; otherwise as it is.

    Raises:
        UnknownModelError: no model of that name.
    """
    head, kind = dict(model.head), model.head.get("type")
    if kind is None and find_spec(model.name).task == "detect":
        return replace(model, head={"type": "multi", **head})
    if kind is not None and getattr(parts.HEADS.get(kind), "task", None) == "detect":
        return replace(model, head={"type": "multi", "boxes": head})
    return model


def for_dataset(spec: DetectorSpec, config: TrainConfig, index: DetectionIndex) -> DetectorSpec:
    """``spec`` with what the training split and the loss decide of the head `multi`; others as they are.

    Raises:
        ConfigError: the configuration says otherwise.
    """
    head = spec.head
    if not isinstance(head, MultiHeadSpec):
        return spec
    found: dict[str, Any] = {
        "num_tags": len(index.tag_names) or None if head.tags else None,
        "num_identities": len(individuals(index)) if head.embeddings else 0,
        "log_variances": config.loss.multi.balance == "uncertainty",
    }
    given = config.model.head
    for name in FOUND:
        if name in given and given[name] is not None and given[name] != found[name]:
            source = "loss.multi.balance" if name == "log_variances" else "the dataset"
            raise ConfigError(
                f"model.head.{name} = {given[name]!r} does not fit this run",
                f"it follows from {source}: {found[name]!r}", "leave it out",
            )  # fmt: skip
    return replace(spec, head=replace(head, **found))


def check_labels(spec: DetectorSpec, config: MultiLossConfig, train: DetectionIndex) -> None:
    """Refuse a training split without the labels of a task that is learned.

    Raises:
        DataError: it has no tags, or fewer than two individuals.
    """
    assert isinstance(spec.head, MultiHeadSpec)
    learned = learned_tasks(spec.head, config)
    if "tags" in learned:
        require_tags(train)
    if "embeddings" in learned:
        require_identities(train)


def prepare(model: Detector, config: MultiLossConfig, index: DetectionIndex) -> None:
    """Tell the head the individuals of the data, and freeze what is not learned, in place.

    A task whose gain is 0 gets no gradients, so weight decay leaves its parameters alone, and processes of a
    distributed run do not wait for them.
    """
    spec = model.spec.head
    assert isinstance(spec, MultiHeadSpec)
    if model.head.identities is not None:
        model.head.identities.set_ids(individuals(index))
    learned = learned_tasks(spec, config)
    branches = {"boxes": (model.head.boxes,), "tags": (model.head.tags,),
                "embeddings": (model.head.embeddings, model.head.identities)}  # fmt: skip
    for task in spec.tasks:
        if task in learned:
            continue
        for branch in branches[task]:
            if branch is not None:
                branch.requires_grad_(False)
        if model.head.log_variances is not None:
            model.head.log_variances[task].requires_grad_(False)


def names_for(model: Detector, source: Detector, index: DetectionIndex) -> Mapping[str, Tensor]:
    """Tensors of ``source`` by the names that they have in ``model``, where one has several tasks and the other not.

    Of other individuals than those of ``index`` the classifier is left out.
    """
    state: dict[str, Any] = source.state_dict()
    known = source.head.identities if source.task == "multi" else None
    if known is not None and known.ids.tolist() != list(individuals(index)):
        state = {key: value for key, value in state.items() if not key.startswith("head.identities.")}
    if model.task == source.task or "multi" not in (model.task, source.task):
        return state
    old, new = ("head.", "head.boxes.") if model.task == "multi" else ("head.boxes.", "head.")
    return {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in state.items()}


def advice(model: Detector, config: TrainConfig) -> list[str]:
    """What is to be said of augmentation that leaves image tags unknown."""
    spec, mosaic = model.spec.head, config.augment.mosaic
    if not (isinstance(spec, MultiHeadSpec) and "tags" in learned_tasks(spec, config.loss.multi) and mosaic):
        return []
    return [
        f"in a mosaic a tag is known only where all its images agree on it; with augment.mosaic = {mosaic:g} tags are "
        "learned mostly from what is left (--set augment.mosaic=0 shows every image with its own)"
    ]
