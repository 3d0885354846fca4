"""The detector that a run starts from: freshly initialised, or with what fits of existing weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import CheckpointError
from cloverleaf.heads.dense import AIDED_ANCHORS
from cloverleaf.models import parts
from cloverleaf.models.catalog import build_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.training.backbone_weights import check_choice, take_backbone
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.multi import FOUND, check_untrained, names_for, prepare
from cloverleaf.training.tasks import dataset_spec
from cloverleaf.weights.backbone import provenance_of
from cloverleaf.weights.format import load, read_metadata
from cloverleaf.weights.transfer import Transfer, transfer


def build_model(config: TrainConfig, index: DetectionIndex, say: Console) -> Detector:
    """The detector of ``config`` for the classes of ``index``, started from `model.weights` where given.

    Tensors of equal name and shape are taken over, so that weights for another number of classes give everything but
    the class-dependent part of the head. Anchors come with them, unless `model.head.anchors_px` is set.

    Raises:
        CheckpointError: the weights cannot be read, are fused, or share no weight with the model.
        ConfigError: `model.weights` and `model.backbone_weights` are both given, or a branch would stay untrained.
    """
    part = config.model
    check_choice(part)
    model = build_detector(dataset_spec(config, index))
    fresh: Sequence[str] = tuple(model.state_dict())
    if part.weights:
        source = load(part.weights)
        if source.spec.fused:
            raise CheckpointError(
                f"{part.weights} is in fused form and cannot be trained further",
                "its BatchNorm layers are folded away",
                "start from the weights that it was fused from, or from an import without --form fused",
            )
        given = (part.head, part.head.get("boxes", {}))
        anchors = not any(isinstance(options, dict) and "anchors_px" in options for options in given)
        result = transfer(model, names_for(model, source, index), anchors=anchors)
        fresh = result.fresh
        weighty = {name for name, value in model.named_parameters() if value.ndim > 1}
        if not weighty & set(result.taken):  # counters and the like fit everywhere
            raise CheckpointError(
                f"{part.weights} does not fit {part.name}",
                f"it holds {source.spec.name}, and no weight has the same name and shape",
                "start from weights of the same model, or leave the model to the weights",
            )
        say.print(_summary(part, source, model, result), highlight=False, markup=False)
    if part.backbone_weights:
        take_backbone(model, part, say)
    if model.task == "multi":
        check_untrained(model, config.loss.multi, fresh)
        prepare(model, config.loss.multi, index)
    return model


def provenance(config: TrainConfig) -> str:
    """What is to be said of where trained weights come from, if those they started from were imported; else empty."""
    part = config.model
    if part.backbone_weights:
        parent, what = provenance_of(part.backbone_weights), "a backbone"
    elif part.weights:
        parent, what = read_metadata(part.weights).provenance, "weights"
    else:
        return ""
    return f"started from {what} {parent}" if parent.startswith("imported") else parent


def model_options(weights: str) -> dict[str, Any]:
    """The `model` section of a configuration that builds the model of a weights file in training form.

    Raises:
        CheckpointError: the file cannot be read.
    """
    spec = DetectorSpec.from_dict(read_metadata(weights).spec)
    usual = find_spec(spec.name)
    if spec.task == "multi" and usual.task == "detect":
        usual = replace(usual, head=parts.with_tasks(usual.head))
    options: dict[str, Any] = {"name": spec.name}
    for part in parts.TABLES:
        values, known, bare = (parts.to_dict(getattr(one, part)) for one in (spec, usual, usual.as_deployed()))
        if values["type"] != known["type"]:
            options[part] = values
        elif changed := _changed(values, known, bare):
            options[part] = changed
    if spec.task == "multi":
        own = {key: value for key, value in options.get("head", {}).items() if key not in FOUND}
        options["head"] = {"type": "multi", **own}
    if spec.supervision not in (None, usual.supervision):
        options["supervision"] = parts.to_dict(spec.supervision)
    return options


def _changed(values: Mapping[str, Any], known: Mapping[str, Any], bare: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are neither the usual ones nor those of the deploy form; anchors come with the weights."""
    changed = {key: value for key, value in values.items() if value not in (known[key], bare[key])}
    if "anchors_px" in changed and _anchors_per_level(values) == _anchors_per_level(known):
        del changed["anchors_px"]
    if "boxes" in changed and values["boxes"]["type"] == known["boxes"]["type"]:
        changed["boxes"] = _changed(values["boxes"], known["boxes"], bare["boxes"])
    return changed


def _anchors_per_level(head: Mapping[str, Any]) -> int:
    return len((head["anchors_px"] or AIDED_ANCHORS)[0])


def _summary(part: ModelConfig, source: Detector, model: Detector, result: Transfer) -> str:
    total = len(result.taken) + len(result.fresh)
    text = f"starting from {part.weights}: {len(result.taken)} of {total} tensors taken over"
    reasons = []
    if source.spec.name != part.name:
        reasons.append(f"the weights are of {source.spec.name}, the model is {part.name}")
    if source.num_classes != model.num_classes:
        reasons.append(f"the weights have {source.num_classes} classes, the data {model.num_classes}")
    if source.spec.form != model.spec.form:
        reasons.append(f"the weights are in {source.spec.form} form")
    if "head.anchors_px" in result.fresh:
        reasons.append("model.head.anchors_px is set")
    because = f" ({'; '.join(reasons)})" if reasons else ""
    return text + (f"; freshly initialised{because}: {_shortened(result.fresh)}" if result.fresh else "")


def _shortened(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
