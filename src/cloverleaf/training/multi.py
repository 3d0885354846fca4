"""What runs of several tasks need besides: a head around that of the model, what the data decide of it, its labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.require_labels import (
    individuals,
    require_identities,
    require_judged,
    require_same_tags,
    require_tags,
)
from cloverleaf.errors import ConfigError
from cloverleaf.evaluation.multi import MultiMetrics
from cloverleaf.heads.multi import OF_BRANCH, MultiHeadSpec
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.models import parts
from cloverleaf.models.catalog import find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.models.multi_criterion import TASKS, learned_tasks
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.weights.format import read_metadata

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


def without_left_out(head: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options ``head`` of weights without those of branches that the ``given`` ones leave out."""
    left_out = [task for task in OF_BRANCH if given.get(task) is False]
    kept = {name: value for name, value in head.items() if not any(name in OF_BRANCH[task] for task in left_out)}
    if isinstance(implicit := kept.get("implicit"), Mapping):
        kept["implicit"] = {name: value for name, value in implicit.items() if name not in left_out}
    return kept


def for_dataset(spec: DetectorSpec, config: TrainConfig, index: DetectionIndex) -> DetectorSpec:
    """``spec`` with what the training split and the loss decide of the head `multi`; others as they are.

    A branch for tags that is switched off is as in the weights that the run starts from.

    Raises:
        ConfigError: the configuration says otherwise.
    """
    head = spec.head
    if not isinstance(head, MultiHeadSpec):
        return spec
    learned = learned_tasks(head, config.loss.multi)
    tags = len(index.tag_names) or None if "tags" in learned else _num_tags(config.model.weights)
    found: dict[str, Any] = {
        "num_tags": tags if head.tags else None,
        "num_identities": len(individuals(index)) if "embeddings" in learned else 0,
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


def _num_tags(weights: str | None) -> int | None:
    """How many tags the head of a weights file has; None without a file, or where it has none."""
    spec = DetectorSpec.from_dict(read_metadata(weights).spec) if weights else None
    if spec is None or not isinstance(spec.head, MultiHeadSpec) or not spec.head.tags:
        return None
    return spec.head.num_tags or spec.num_classes


def check_labels(spec: DetectorSpec, config: TrainConfig, *splits: DetectionIndex) -> None:
    """Refuse splits, of which the first is for training, without the labels of a task that is learned.

    Raises:
        DataError: the first has no tags, or fewer than two individuals; another has labels for none of the tasks; or
            the tags of one are not those of the first, or of the weights where tags are not learned.
    """
    assert isinstance(spec.head, MultiHeadSpec)
    learned = learned_tasks(spec.head, config.loss.multi)
    if "tags" in learned:
        require_tags(splits[0])
    if "embeddings" in learned:
        require_identities(splits[0])
    for index in splits[1:]:
        require_judged(learned, index)
    if spec.head.tags:
        require_same_tags(label_names(spec, config, splits[0]).tag_names, *splits)


def label_names(spec: DetectorSpec, config: TrainConfig, index: DetectionIndex) -> WeightsMetadata:
    """What is to be said of tags and individuals: those of the training split where they are learned, else those of the
    weights that the run starts from."""
    if not isinstance(spec.head, MultiHeadSpec):
        return WeightsMetadata()
    learned = learned_tasks(spec.head, config.loss.multi)
    idle, weights = len(learned) < len(spec.head.tasks), config.model.weights
    before = read_metadata(weights) if idle and weights else WeightsMetadata()
    tags = index.tag_names if "tags" in learned else before.tag_names
    known = individuals(index) if "embeddings" in learned else before.identities
    return WeightsMetadata(tag_names=tags if spec.head.tags else (), identities=known if spec.head.embeddings else ())


def check_phase(config: TrainConfig, phase: MultiLossConfig) -> None:
    """Refuse a phase that switches a task on or off, or weighs them by another rule.

    Raises:
        ConfigError: it does.
    """
    run = config.loss.multi
    for name in TASKS:
        if (getattr(phase, name) == 0) != (getattr(run, name) == 0):
            raise ConfigError(
                f"loss.multi.{name} = {getattr(phase, name)} in one phase",
                f"a task is learned in all of a run or not at all, and the run has {getattr(run, name)}",
                "set it for the whole run, or use a small gain",
            )
    if phase.balance != run.balance:
        raise ConfigError(
            f"loss.multi.balance = {phase.balance} in one phase", f"the run has {run.balance}",
            "set it for the whole run",
        )  # fmt: skip


def check_untrained(model: Detector, config: MultiLossConfig, fresh: Collection[str]) -> None:
    """Refuse branches that would stay as they are initialised; that for boxes is told apart by its numbers.

    Args:
        model: with several tasks.
        config: gains.
        fresh: names of the tensors that were not taken from weights.

    Raises:
        ConfigError: tags or embeddings are switched off, and do not come from weights.
    """
    spec = model.spec.head
    assert isinstance(spec, MultiHeadSpec)
    for task in spec.tasks[1:]:
        if task not in learned_tasks(spec, config) and any(name.startswith(f"head.{task}.") for name in fresh):
            raise ConfigError(
                f"loss.multi.{task} = 0 leaves the branch for {task} untrained",
                "it starts afresh here, and would be judged and predicted from all the same",
                f"leave it out with model.head.{task}=false, or start from weights that have it",
            )


def as_learned(result: EvaluationResult, model: Detector, config: TrainConfig) -> EvaluationResult:
    """``result`` with a fitness of those tasks only that the run learns."""
    spec, metrics = model.spec.head, result.metrics
    if not isinstance(metrics, MultiMetrics) or not isinstance(spec, MultiHeadSpec):
        return result
    return replace(result, metrics=replace(metrics, counted=learned_tasks(spec, config.loss.multi)))


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
