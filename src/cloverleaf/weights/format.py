"""Weights files: safetensors plus one JSON entry that says all that is needed to rebuild and use the model."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from cloverleaf import __version__, atomic
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models.catalog import empty_detector
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import BACKBONE_KEY, KEY, SCHEMA_VERSION, WeightsMetadata, parse_metadata
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.weights.strict import check_fit, fill_detector, shapes

__all__ = ["SCHEMA_VERSION", "WeightsMetadata", "load", "read_metadata", "save"]

_ADAPTER: TypeAdapter[WeightsMetadata] = TypeAdapter(WeightsMetadata)


def save(
    model: Detector, path: str | os.PathLike[str], *, metadata: WeightsMetadata | None = None, half: bool = False
) -> None:
    """Write ``model`` so that `load` needs nothing else; the file appears whole or not at all.

    Args:
        model: in any form; what it was built from is written with it.
        path: the file, usually ``*.safetensors``; missing folders are made.
        metadata: facts about the weights; ``model.metadata`` where None. Its model, spec, task and versions are set
            here.
        half: store floating-point tensors (but not the anchors) as float16.

    Raises:
        ConfigError: the metadata does not fit the model.
    """
    facts = metadata or model.metadata or WeightsMetadata()
    for what, values in (("class names", facts.class_names), ("category ids", facts.category_ids)):
        if values and len(values) != model.num_classes:
            raise ConfigError(
                f"metadata has {len(values)} {what}",
                f"the model has {model.num_classes} classes",
                "give one for each class, or none",
            )
    spec = model.current_spec()
    facts = dataclasses.replace(
        facts,
        model=spec.name,
        spec=spec.to_dict(),
        task=spec.task,
        schema_version=SCHEMA_VERSION,
        cloverleaf_version=__version__,
    )
    tensors = {}
    for key, value in model.state_dict().items():
        stored = value.detach().cpu().contiguous()
        tensors[key] = (
            stored.half() if half and stored.is_floating_point() and not key.endswith(".anchors_px") else stored
        )
    atomic.write_bytes(Path(path), to_bytes(tensors, {KEY: json.dumps(_ADAPTER.dump_python(facts, mode="json"))}))


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Detector:
    """The model of a weights file, in float32 and evaluation mode, with ``.metadata``.

    Raises:
        CheckpointError: the file is absent, damaged, foreign, of a newer schema, or does not fit its own description.
    """
    path = Path(path)
    facts, tensors = _read(path, with_tensors=True)
    try:
        model = empty_detector(DetectorSpec.from_dict(facts.spec))
    except ConfigError as error:
        raise CheckpointError(f"{path}: cannot rebuild model {facts.model!r}", str(error), _UPGRADE) from error
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    check_fit(f"{path}: tensors do not fit model {facts.model!r}", shapes(model), found, "the file is damaged")
    fill_detector(model, tensors)
    model.metadata = facts
    return model.to(device)


def read_metadata(path: str | os.PathLike[str]) -> WeightsMetadata:
    """What a weights file says about its model, without reading tensors; errors as `load`."""
    return _read(Path(path), with_tensors=False)[0]


_UPGRADE = "install the version of cloverleaf that wrote the file, or a newer one"


def _read(path: Path, *, with_tensors: bool) -> tuple[WeightsMetadata, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}", "there is no such file", "check the path")
    try:
        with safe_open(path, framework="pt") as file:
            entries = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        why, fix = f"it is truncated or not a safetensors file ({error})", "copy or make it again"
        if _is_torch_file(path):
            why, fix = "it is a checkpoint of PyTorch, not a safetensors file", f"run cloverleaf import {path} first"
        raise CheckpointError(f"{path} cannot be read", why, fix) from error
    if BACKBONE_KEY in entries:
        raise CheckpointError(
            f"{path} holds a backbone only", "it was written by cloverleaf pretrain, or by import --backbone",
            f"train a detector from it: cloverleaf train --backbone-weights {path}",
        )  # fmt: skip
    if KEY not in entries:
        raise CheckpointError(
            f"{path} was not written by cloverleaf",
            f"it has no {KEY!r} metadata",
            f"run cloverleaf import {path} -o NEW.safetensors first",
        )
    facts = parse_metadata(WeightsMetadata, path, entries[KEY], version=SCHEMA_VERSION, fix=_UPGRADE)
    return facts, tensors


def _is_torch_file(path: Path) -> bool:
    """By the first bytes: a zip archive or a pickle."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))
