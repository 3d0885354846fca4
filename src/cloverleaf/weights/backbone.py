"""Weights of a backbone alone: what pre-training leaves, and what any detector's file can give."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from cloverleaf import __version__, atomic
from cloverleaf.errors import CheckpointError
from cloverleaf.models import parts
from cloverleaf.models.metadata import BACKBONE_KEY, SCHEMA_VERSION, WeightsMetadata, parse_metadata
from cloverleaf.weights.format import load, read_metadata

PLAIN = "rgb/255"
IMAGENET = "rgb, less ImageNet's mean and over its deviation"
_PREFIX = "backbone."


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneMetadata:
    """What a backbone's file says.

    Attributes:
        backbone: the options it is built from, as plain containers with their ``type``.
        normalisation: how pixels became inputs.
        image_size: side of the images in training, pixels.
        images, epochs: how many it has seen, and how often.
        pretraining: how the images were hidden: `mask_ratio`, `patch_size`, `loss` at the end.
        recipe_hash: identifies the resolved configuration.
        provenance: where foreign weights came from and under which licence.
        schema_version: version of this layout.
        cloverleaf_version: the version that wrote the file.
    """

    backbone: dict[str, Any]
    normalisation: str = PLAIN
    image_size: int | None = None
    images: int | None = None
    epochs: int | None = None
    pretraining: dict[str, float] = field(default_factory=dict)
    recipe_hash: str = ""
    provenance: str = ""
    schema_version: int = SCHEMA_VERSION
    cloverleaf_version: str = __version__


@dataclass(frozen=True, slots=True)
class BackboneWeights:
    """A backbone's tensors and where they are from.

    Attributes:
        spec: options it was built from.
        state: tensors by the names of the plain backbone, float32 where floating.
        origin: in words, for messages.
        normalisation: how pixels became inputs.
        provenance: where foreign weights came from and under which licence; else empty.
    """

    spec: Any
    state: Mapping[str, Tensor]
    origin: str
    normalisation: str
    provenance: str = ""


def save_backbone(
    path: str | os.PathLike[str], backbone: nn.Module, metadata: BackboneMetadata, *, half: bool = False
) -> None:
    """Write the state dict of ``backbone`` with ``metadata``; the file appears whole or not at all.

    Args:
        path: ends in ``.safetensors``; folders are made.
        backbone: any backbone.
        metadata: what the file says of it.
        half: store floating-point tensors as float16.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    text = json.dumps(dataclasses.asdict(metadata))
    atomic.write_bytes(Path(path), to_bytes(tensors, {BACKBONE_KEY: text}))


def load_backbone(path: str | os.PathLike[str]) -> BackboneWeights:
    """The backbone in a file of `save_backbone`, or in any weights file of a detector that is not fused.

    Raises:
        CheckpointError: the file is absent, damaged, foreign or fused.
    """
    path = Path(path)
    facts, tensors = _read(path)
    if facts is None:
        detector = load(path)
        if detector.spec.fused:
            raise CheckpointError(
                f"{path} is in fused form and cannot give a backbone to train",
                "its BatchNorm layers are folded away",
                "use the weights that it was fused from",
            )
        state = {
            key.removeprefix(_PREFIX): value for key, value in detector.state_dict().items() if key.startswith(_PREFIX)
        }
        known = detector.metadata or WeightsMetadata()
        return BackboneWeights(
            detector.spec.backbone, state, f"the backbone of {detector.spec.name}", known.normalisation,
            known.provenance,
        )  # fmt: skip
    spec = parts.from_dict("backbone", facts.backbone)
    state = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    seen = f"pre-trained on {facts.images} images for {facts.epochs} epochs" if facts.images else "a backbone"
    return BackboneWeights(spec, state, seen, facts.normalisation, facts.provenance)


def provenance_of(path: str | os.PathLike[str]) -> str:
    """Where the weights of a file that `load_backbone` reads came from, if they were imported; else empty.

    Raises:
        CheckpointError: the file is absent, damaged or foreign.
    """
    facts, _ = _read(Path(path), with_tensors=False)
    return facts.provenance if facts is not None else read_metadata(path).provenance


def _read(path: Path, *, with_tensors: bool = True) -> tuple[BackboneMetadata | None, dict[str, Tensor]]:
    """Metadata and tensors of a backbone's file; (None, {}) where it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(BACKBONE_KEY)
            if text is None:
                return None, {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None, {}  # `load` says what is wrong with it
    fix = "install the version of cloverleaf that wrote the file, or a newer one"
    facts = parse_metadata(BackboneMetadata, path, text, version=SCHEMA_VERSION, fix=fix)
    return facts, tensors


def input_of(spec: Any, normalisation: str = PLAIN) -> str:
    """What the first layer of a backbone sees: pixels as they are given to it, or as it has normalised them itself."""
    return IMAGENET if getattr(spec, "normalize", False) else normalisation


def describe(spec: Any) -> str:
    """A backbone and its options that are not the default ones: ``efficient-rep(width=0.5)``."""
    values = parts.to_dict(spec)
    usual = parts.to_dict(type(spec)())
    name = values.pop("type")
    if name == "timm":
        name, values["model"] = f"timm/{values['model']}", usual["model"]
    changed = [f"{key}={value}" for key, value in values.items() if value != usual[key]]
    return f"{name}({', '.join(changed)})" if changed else str(name)
