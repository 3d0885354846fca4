"""Published state dicts in and out: names are recognised, renamed and proved complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cloverleaf.errors import CheckpointError, suggest
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.models.catalog import empty_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Form
from cloverleaf.weights.importers import yolov7
from cloverleaf.weights.importers.names import NameTable
from cloverleaf.weights.strict import Shape, check_fit, fill_detector, shapes

PUBLISHED: tuple[str, ...] = (*yolov7.NAMES,)


def import_state_dict(name: str, state: Mapping[str, Tensor], *, num_classes: int | None = None) -> Detector:
    """A detector in evaluation mode from a published state dict.

    The form is recognised by the names: implicit terms mean training form, their absence deploy form, and convolutions
    without BatchNorm the fused form (whose implicit terms, if still present, are no longer in force and are ignored).

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
    form = recognise_form(state)
    what = f"checkpoint in {form} form does not fit {name}"
    auxiliary = any(".m2." in key for key in state)
    whole = _with_auxiliary(_published_spec(name), auxiliary)
    table = yolov7.name_table(whole)
    state = {key: torch.as_tensor(value) for key, value in state.items()}
    if form == "fused":  # what was left standing when the published code fused a training form
        idle = (*_implicit(table), *table.auxiliary)
        state = {key: value for key, value in state.items() if not key.startswith(idle)}
    whole = replace(whole, num_classes=_num_classes(what, whole, state, table, num_classes))
    spec = {"training": whole, "deploy": whole.as_deployed(), "fused": whole.as_fused()}[form]
    model = empty_detector(spec)
    names = table.published(model.state_dict())
    expected = _published_shapes(model, table)
    for key in names.values():  # a mere counter, unused with a fixed momentum; some exporters leave it out
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.zeros((), dtype=torch.int64))
    found = {key: tuple(value.shape) for key, value in state.items()}
    check_fit(what, expected, found, "check the variant and the number of classes")
    tensors = {key: state[theirs] for key, theirs in names.items()}
    tensors["head.anchors_px"] = _anchors(what, state, table, model.strides)
    fill_detector(model, tensors)
    model.spec = model.current_spec()
    return model


def export_state_dict(model: Detector) -> dict[str, Tensor]:
    """The published names and tensors of ``model``, in its form and in the published order.

    Raises:
        CheckpointError: the family has no published names.
    """
    _published_spec(model.spec.name)
    table = yolov7.name_table(model.spec)
    state = model.state_dict()
    theirs = {published: state[key] for key, published in table.published(state).items()}
    theirs |= table.anchors_to_published(model.anchors_px, model.strides)
    return {key: theirs[key] for key in sorted(theirs, key=table.sort_key)}


def published_shapes(spec: DetectorSpec) -> dict[str, Shape]:
    """Published names of a spec's form -> shapes.

    Raises:
        CheckpointError: the family has no published names.
    """
    _published_spec(spec.name)
    return _published_shapes(empty_detector(spec), yolov7.name_table(spec))


def recognise_form(state: Iterable[str]) -> Form:
    """Which published form the names belong to."""
    keys = tuple(state)
    if not any(".bn." in key for key in keys):
        return "fused"
    return "training" if any(".ia." in key for key in keys) else "deploy"


def _published_spec(name: str) -> DetectorSpec:
    spec = find_spec(name)
    if name not in PUBLISHED:
        raise CheckpointError(
            f"{name} has no published checkpoint names",
            "only models of published families can be imported and exported",
            suggest(name, PUBLISHED),
        )
    return spec


def _with_auxiliary(spec: DetectorSpec, auxiliary: bool) -> DetectorSpec:
    head = spec.head
    return replace(spec, head=replace(head, auxiliary=auxiliary)) if isinstance(head, AnchorHeadSpec) else spec


def _implicit(table: NameTable) -> tuple[str, ...]:
    return f"{table.head}ia.", f"{table.head}im."


def _published_shapes(model: Detector, table: NameTable) -> dict[str, Shape]:
    ours = shapes(model)
    expected = {theirs: ours[key] for key, theirs in table.published(ours).items()}
    anchors = table.anchors_to_published(model.anchors_px, model.strides)
    return expected | {key: tuple(value.shape) for key, value in anchors.items()}


def _num_classes(
    what: str, spec: DetectorSpec, state: Mapping[str, Tensor], table: NameTable, wanted: int | None
) -> int:
    bias = state.get(f"{table.head}m.0.bias")
    if bias is None:
        return wanted or spec.num_classes
    anchors = state.get(f"{table.head}anchors")
    per_cell = anchors.shape[1] if anchors is not None and anchors.ndim == 3 else 3
    found, rest = divmod(bias.numel(), per_cell)
    if rest or found < 6:
        raise CheckpointError(what, f"{table.head}m.0.bias has {bias.numel()} values", "check the variant")
    if wanted is not None and found - 5 != wanted:
        raise CheckpointError(
            what,
            f"its head has {found - 5} classes, not {wanted}",
            f"leave num_classes out; cloverleaf import --num-classes {wanted} (in Python import_checkpoint or "
            "with_num_classes) starts the head anew and keeps the rest",
        )
    return found - 5


def _anchors(what: str, state: Mapping[str, Tensor], table: NameTable, strides: tuple[int, ...]) -> Tensor:
    """Pixels from `anchor_grid`; `anchors` (grid units, perhaps rounded to fp16) must agree within 1 %."""
    pixels = state[f"{table.head}anchor_grid"].float()[:, 0, :, 0, 0, :]
    units = state[f"{table.head}anchors"].float()
    if not torch.allclose(units * torch.tensor(strides)[:, None, None], pixels, rtol=0.01, atol=0.01):
        raise CheckpointError(
            what, f"{table.head}anchors and {table.head}anchor_grid disagree", "the checkpoint is inconsistent"
        )
    return pixels
