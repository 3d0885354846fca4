"""Published state dicts in and out: names are recognised, renamed and proved complete."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cloverleaf.errors import CheckpointError, suggest
from cloverleaf.layers.implicit import Placements
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.weights.importers import gold_yolo, revcol, yolor_darknet, yolor_yaml, yolov7
from cloverleaf.weights.importers.family import Family, Layout
from cloverleaf.weights.strict import Shape, check_fit, fill_detector

FAMILIES: tuple[Family, ...] = (yolov7, gold_yolo, revcol, yolor_darknet, yolor_yaml)
CHECK_VARIANT = "check the variant and the number of classes"
PUBLISHED: tuple[str, ...] = tuple(name for family in FAMILIES for name in family.NAMES)


def import_state_dict(name: str, state: Mapping[str, Tensor], *, num_classes: int | None = None) -> Detector:
    """A detector in evaluation mode from a published state dict.

    The form is recognised by the names. YOLOv7: implicit terms mean training form, their absence deploy form, and
    convolutions without BatchNorm the fused form (whose implicit terms, if still present, are no longer in force and
    are ignored). Gold-YOLO: a backbone without BatchNorm means fused form, otherwise the branches of the head decide;
    of a fused one with branches for training only those that are in force are read. RevCol: several classifiers mean
    supervised columns and so training form; the names and shapes also say the size of a model that is no variant
    (``revcol+none+classify``) and the kernels of one that is. YOLOR in darknet's form: as YOLOv7, but what is folded
    is of our own making; the anchors, which its state dicts lack, are those of the variant. YOLOR in the paper's form:
    as YOLOv7, but the implicit terms of a fused form are in force, and are folded.

    Args:
        name: catalog name of the variant.
        state: published names and tensors, of any floating-point type.
        num_classes: what is expected; read from the head where None.

    Returns:
        The model in the form that was recognised, in float32 on the CPU.

    Raises:
        UnknownModelError: no model of that name.
        CheckpointError: the family has no published names, or tensors are missing, left over or mis-shaped.
    """
    spec = find_spec(name)
    family = find_family(spec)
    what = f"checkpoint in {family.recognise_form(state)} form does not fit {name}"
    reading = family.read(what, spec, {key: torch.as_tensor(value) for key, value in state.items()}, num_classes)
    model = empty_detector(reading.spec)
    expected = _shapes(reading.layout.to_published(model))
    tensors = dict(reading.state)
    for key in expected:  # a mere counter, unused with a fixed momentum; some exporters leave it out
        if key.endswith("num_batches_tracked"):
            tensors.setdefault(key, torch.zeros((), dtype=torch.int64))
    check_fit(what, expected, _shapes(tensors), CHECK_VARIANT)
    fill_detector(model, reading.layout.to_ours(what, model, tensors))
    model.spec = model.current_spec()
    return model


def export_state_dict(model: Detector) -> dict[str, Tensor]:
    """The published names and tensors of ``model``, in its form and in the published order.

    Raises:
        CheckpointError: the family has no published names, or they cannot express this model.
    """
    return _layout(model.current_spec()).to_published(model)


def published_shapes(spec: DetectorSpec) -> dict[str, Shape]:
    """Published names of a spec's form -> shapes.

    Raises:
        CheckpointError: the family has no published names, or they cannot express this model.
    """
    return _shapes(_layout(spec).to_published(empty_detector(spec)))


def describe(what: str, state: Mapping[str, Tensor]) -> DetectorSpec | None:
    """What a published state dict is of, where its names and shapes say it all; None where variants are to be compared.

    Raises:
        CheckpointError: they contradict each other; it begins with ``what``.
    """
    shapes = _shapes(state)
    return next((family.describe(what, shapes) for family in FAMILIES if family.is_like(shapes)), None)


def _layout(spec: DetectorSpec) -> Layout:
    """That of the family; refuses implicit knowledge that is no part of any released model."""
    for part in (spec.neck, spec.head):
        if isinstance(getattr(part, "implicit", None), Placements):
            raise CheckpointError(
                f"this {spec.name} cannot be written with published names",
                "released models have implicit knowledge around the last convolutions of anchor heads only",
                "use cloverleaf.save, which keeps everything, or deploy the model first, which folds it away",
            )
    return find_family(spec).layout(spec)


def find_family(spec: DetectorSpec) -> Family:
    """The family of published names that ``spec`` belongs to.

    Raises:
        CheckpointError: it has no published names.
    """
    for family in FAMILIES:
        if family.covers(spec):
            return family
    raise CheckpointError(
        f"{spec.name} has no published checkpoint names",
        "only models of published families can be imported and exported",
        suggest(spec.name, PUBLISHED),
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in state.items()}
