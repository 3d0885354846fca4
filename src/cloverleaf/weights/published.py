"""From a published checkpoint file to a detector of ours, with a record of where it came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.errors import CheckpointError
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.catalog import MODELS, empty_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.models.spec import Form, HeadSpec
from cloverleaf.weights.backbone import describe as describe_backbone
from cloverleaf.weights.importer import CHECK_VARIANT, describe, find_family, import_state_dict
from cloverleaf.weights.reader import PublishedCheckpoint, read_checkpoint
from cloverleaf.weights.recognise import Likeness, recognise
from cloverleaf.weights.transfer import Transfer, with_num_classes

_CONVERTED = "they were converted on this machine, and Cloverleaf does not redistribute them"


@dataclass(frozen=True, slots=True)
class ImportedCheckpoint:
    """A detector and what was found in the file it came from.

    Attributes:
        detector: with metadata that say where it came from.
        checkpoint: what was read.
        name: catalog name of the variant.
        also: variants with the same names and shapes, where the name was recognised and not given.
        found: form of the weights in the file.
        classes_found: number of classes of its head.
        branches: what its head predicts boxes with, where the files of one variant differ in that; else empty.
        notes: what else is to be said of the model, a sentence each.
        transfer: what was kept when the number of classes was changed, else None.
        not_finite: published names of tensors that hold infinities or NaN.
        names_dropped: whether the file has class names that do not fit its number of classes.
        activation: of the modules in the file, where it is another than that of the variant; else empty.
    """

    detector: Detector
    checkpoint: PublishedCheckpoint
    name: str
    also: tuple[str, ...]
    found: Form
    classes_found: int
    branches: tuple[str, ...]
    notes: tuple[str, ...]
    transfer: Transfer | None
    not_finite: tuple[str, ...]
    names_dropped: bool
    activation: str


def import_checkpoint(
    path: str | os.PathLike[str],
    model: str | None = None,
    *,
    form: Form | None = None,
    num_classes: int | None = None,
) -> ImportedCheckpoint:
    """Read a published checkpoint and make a detector of it, in float32 on the CPU and in evaluation mode.

    Args:
        path: a ``.pt`` file as `read_checkpoint` reads it, or safetensors with published names.
        model: catalog name of the variant; recognised by names and shapes where None.
        form: convert to this form; that of the file where None.
        num_classes: start the class-dependent part of the head anew for so many classes, where the file has another
            number; everything else is kept.

    Raises:
        UnknownModelError: no model of that name.
        CheckpointError: the file is refused (see `read_checkpoint`), its tensors are not exactly those of the variant,
            no variant is recognised, or the form cannot be made.
    """
    path = Path(path)
    if model is not None:
        find_spec(model)
    checkpoint = read_checkpoint(path)
    name, also = (model, ()) if model is not None else _recognised(path, checkpoint)
    detector = _imported(path, name, checkpoint.state)
    if isinstance(detector.spec.backbone, RevColSpec):
        detector = _normalizing(detector)
    found, classes_found, branches = detector.spec.form, detector.num_classes, _branches(detector.spec.head)
    notes = _notes(detector)
    fits = len(checkpoint.class_names) == classes_found
    detector.metadata = WeightsMetadata(
        class_names=checkpoint.class_names if fits else (),
        image_size=MODELS[name].image_size if name in MODELS else None,
        task=detector.task,
        provenance=provenance(path, checkpoint, f"{found} form", find_family(detector.spec).ORIGIN),
    )
    changes = None
    if num_classes is not None and num_classes != detector.num_classes:
        detector, changes = with_num_classes(detector, num_classes)
    return ImportedCheckpoint(
        detector=_in_form(path, detector, form or found),
        checkpoint=checkpoint,
        name=name,
        also=also,
        found=found,
        classes_found=classes_found,
        branches=branches,
        notes=notes,
        transfer=changes,
        not_finite=tuple(key for key, value in checkpoint.state.items() if not value.isfinite().all()),
        names_dropped=bool(checkpoint.class_names) and not fits,
        activation=_other_activation(name, checkpoint),
    )


def _recognised(path: Path, checkpoint: PublishedCheckpoint) -> tuple[str, tuple[str, ...]]:
    """The name, and others of the same names and shapes between which the modules in the file do not decide."""
    described = describe(str(path), checkpoint.state)
    if described is not None:
        return described.name, ()
    likeness = recognise(checkpoint.state)
    if not likeness.is_likely:
        raise CheckpointError(
            f"{path} is of no model that can be imported",
            f"only {likeness.share:.0%} of its tensors agree with {likeness.name}, which is nearest",
            "cloverleaf models lists what there is; name one with --model to see every difference",
        )
    names: tuple[str, ...] = (likeness.name, *likeness.also)
    for of_model, of_file in ((_activation_of, _activation(checkpoint)), (_stem_of, _stem(checkpoint))):
        decided = tuple(name for name in names if of_file and of_model(name) == of_file)
        names = decided or names
    return names[0], names[1:]


def _notes(detector: Detector) -> tuple[str, ...]:
    backbone, supervision = detector.spec.backbone, detector.spec.supervision
    if not isinstance(backbone, RevColSpec):
        return ()
    lines = [f"its backbone is {describe_backbone(backbone)}, which normalises images by itself"]
    if supervision is not None:
        lines.append(
            f"{len(detector.supervision.columns)} earlier columns have classifiers and decoders for training, "
            "which --form deploy leaves out"
        )
    return tuple(lines)


def _normalizing(detector: Detector) -> Detector:
    """The same for images in [0, 1]: its weights were learned from images less ImageNet's mean, over its deviation."""
    spec = replace(detector.spec, backbone=replace(cast(RevColSpec, detector.spec.backbone), normalize=True))
    normalizing = empty_detector(spec)
    normalizing.load_state_dict(detector.state_dict(), assign=True)
    return normalizing


def _branches(head: HeadSpec) -> tuple[str, ...]:
    if not isinstance(head, DenseHeadSpec):
        return ()
    named = {
        f"distributions over 0 to {head.reg_max} cells": head.reg_max > 0,
        "distances": head.reg_max == 0,
        "direct distances beside them": head.direct,
        "an anchor branch that aids training": head.aided,
    }
    return tuple(name for name, there in named.items() if there)


def _activation(checkpoint: PublishedCheckpoint) -> str:
    """The one kind of activation that the modules in the file are of; empty where they do not say."""
    kinds = {"torch.nn.modules.activation.SiLU": "silu", "torch.nn.modules.activation.LeakyReLU": "leaky_relu"}
    found = [kind for module, kind in kinds.items() if module in checkpoint.modules]
    return found[0] if len(found) == 1 else ""


def _other_activation(name: str, checkpoint: PublishedCheckpoint) -> str:
    """That of the modules in the file where the variant has another one; a mixture says nothing."""
    wanted, found = _activation_of(name), _activation(checkpoint)
    return found if wanted and found != wanted else ""


def _activation_of(name: str) -> str:
    return str(getattr(find_spec(name).backbone, "activation", ""))


def _stem(checkpoint: PublishedCheckpoint) -> str:
    """How the image is read, where the modules in the file are of one of YOLOR's two kinds without convolutions."""
    kinds = {"models.common.DWT": "wavelet-8", "models.common.ReOrg": "space-to-depth-8"}
    return next((kind for module, kind in kinds.items() if module in checkpoint.modules), "")


def _stem_of(name: str) -> str:
    return str(getattr(find_spec(name).backbone, "stem", ""))


def _imported(path: Path, name: str, state: Mapping[str, Tensor]) -> Detector:
    try:
        return import_state_dict(name, state)
    except CheckpointError as error:
        likeness = recognise(state)
        if likeness.is_likely and name not in (likeness.name, *likeness.also):
            raise CheckpointError(
                f"{path} is not {name}", _looks_like(likeness), f"use --model {likeness.name}"
            ) from error
        fix = error.fix
        if likeness.is_likely and fix == CHECK_VARIANT:
            fix = f"get the file again; {name} needs all tensors and no others"
        raise CheckpointError(f"{path}: {error.what}", error.why, fix) from error


def _looks_like(likeness: Likeness) -> str:
    agree = "all" if likeness.share == 1 else f"{likeness.share:.0%}"
    return f"its names and shapes are those of {likeness.name} in {likeness.form} form ({agree} agree)"


def provenance(path: Path, checkpoint: PublishedCheckpoint, what: str, origin: str) -> str:
    """Where converted weights are from.

    Args:
        path: of the file.
        checkpoint: what was read from it.
        what: was taken.
        origin: of the family's weights, see `Family.ORIGIN`.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = f"its entry {checkpoint.source}, " if checkpoint.source else ""
    return f"imported from {path.name} ({entry}{what}, sha256 {digest}); {origin}; {_CONVERTED}"


def _in_form(path: Path, detector: Detector, form: Form) -> Detector:
    found = detector.spec.form
    order: tuple[Form, ...] = ("training", "deploy", "fused")
    if order.index(form) < order.index(found):
        raise CheckpointError(
            f"{path} cannot be imported in {form} form",
            f"it is in {found} form; what was folded away or dropped cannot be had back",
            "import a checkpoint in training form, or leave --form out"
            + ("; the deploy form can be trained further, too" if found == "deploy" else ""),
        )
    if form == found:
        return detector
    return detector.fused() if form == "fused" else detector.deployed()
