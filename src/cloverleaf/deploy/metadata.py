"""What an exported file says about itself, so that it can be used without anything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from cloverleaf import __version__
from cloverleaf.deploy.suppression import Suppression
from cloverleaf.errors import CheckpointError
from cloverleaf.models.metadata import parse_metadata

SCHEMA_VERSION = 1
_UPGRADE = "export it again, or install the version of cloverleaf that wrote it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportMetadata:
    """One JSON entry in the file's own metadata.

    Attributes:
        model: catalog name or composition.
        num_classes: K.
        class_names: one per class; empty where unknown.
        category_ids: COCO category id of each class, or None where classes have no other ids.
        num_tags: T, image-level labels of a model for several tasks; 0 for none.
        tag_names: one per tag; empty where unknown.
        embedding_strides: input pixels per cell of each map of embeddings, ascending; empty for a model without.
        identities: individuals that it was trained to tell apart; empty where unknown.
        image_size: side of the square input in pixels: the only one that the file takes, or the one that it was trained
            for where ``dynamic``.
        batch_size: images per run, None where ``dynamic``.
        dynamic: any number of images, of any height and width that are multiples of ``stride``.
        stride: of the coarsest feature map.
        normalisation: how pixels become inputs.
        colour_order: of the three input channels.
        suppression: thresholds of the suppression inside, None where the outputs are all boxes and scores.
        form: of the model that was exported; `fused` has no normalisation layers and no training-only branches.
        task: what it was trained for.
        provenance: where foreign weights came from and under which licence.
        parent: the weights that were exported.
        schema_version: version of this layout.
        cloverleaf_version: the version that wrote the file.
    """

    model: str
    num_classes: int
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None
    num_tags: int = 0
    tag_names: tuple[str, ...] = ()
    embedding_strides: tuple[int, ...] = ()
    identities: tuple[int, ...] = ()
    image_size: int
    batch_size: int | None
    dynamic: bool
    stride: int
    normalisation: str = "rgb/255"
    colour_order: Literal["rgb"] = "rgb"
    suppression: Suppression | None = None
    form: str = "fused"
    task: str = "detect"
    provenance: str = ""
    parent: str = ""
    schema_version: int = SCHEMA_VERSION
    cloverleaf_version: str = __version__


_ADAPTER: TypeAdapter[ExportMetadata] = TypeAdapter(ExportMetadata)


def to_json(metadata: ExportMetadata) -> str:
    """The entry's text."""
    return json.dumps(_ADAPTER.dump_python(metadata, mode="json"))


def from_json(path: object, text: str) -> ExportMetadata:
    """Read what `to_json` wrote; strict.

    Raises:
        CheckpointError: the text is damaged or of another schema version; ``path`` names the file.
    """
    metadata = parse_metadata(ExportMetadata, path, text, version=SCHEMA_VERSION, fix=_UPGRADE)
    _check_consistency(path, metadata)
    return metadata


def _check_consistency(path: object, metadata: ExportMetadata) -> None:
    """Numbers that contradict each other would fail far away from here."""
    faults = [
        f"{len(values)} {what} for {metadata.num_classes} classes"
        for what, values in (("class names", metadata.class_names), ("category ids", metadata.category_ids or ()))
        if values and len(values) != metadata.num_classes
    ]
    if metadata.tag_names and len(metadata.tag_names) != metadata.num_tags:
        faults.append(f"{len(metadata.tag_names)} tag names for {metadata.num_tags} tags")
    if metadata.stride < 1 or metadata.image_size < 1 or metadata.image_size % max(metadata.stride, 1):
        faults.append(f"image size {metadata.image_size} with stride {metadata.stride}")
    if metadata.dynamic != (metadata.batch_size is None) or (metadata.batch_size or 1) < 1:
        faults.append(f"batch size {metadata.batch_size} where dynamic is {metadata.dynamic}")
    if faults:
        raise CheckpointError(f"{path}: damaged metadata", "; ".join(faults), "make the file again")
