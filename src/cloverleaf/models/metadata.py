"""What a weights file says about the model in it, and strict reading of such entries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cloverleaf import __version__
from cloverleaf.errors import CheckpointError, ConfigError

KEY = "cloverleaf"  # of the one JSON entry in weights files and exported files
BACKBONE_KEY = "cloverleaf-backbone"  # of that in files of a backbone alone
SCHEMA_VERSION = 1

_Metadata = TypeVar("_Metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsMetadata:
    """Everything that is needed to use a model besides its tensors.

    Attributes:
        model: catalog name; filled in by `save`.
        spec: the full `DetectorSpec` as plain containers; filled in by `save`.
        class_names: one per class; empty where unknown.
        category_ids: COCO category id of each class, or None where classes have no other ids.
        tag_names: one per image-level label of a model that predicts some; empty where unknown.
        identities: of a model with embeddings the individuals that it was trained to tell apart, by their numbers in
            that dataset; empty where unknown.
        image_size: side of the network input that it was trained for, in pixels; None where unknown.
        normalisation: how pixels become inputs.
        task: what it was trained for.
        metrics: results on the validation split.
        recipe_hash: identifies the resolved training configuration.
        parent: the weights that training started from.
        teacher: the weights whose model it was distilled from.
        parents: of merged weights the files and their shares, which add up to 1.
        statistics: where the BatchNorm statistics come from; empty where they are those of training.
        provenance: where foreign weights came from and under which licence.
        schema_version: version of this layout.
        cloverleaf_version: the version that wrote the file.
    """

    model: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None
    tag_names: tuple[str, ...] = ()
    identities: tuple[int, ...] = ()
    image_size: int | None = None
    normalisation: str = "rgb/255"
    task: str = "detect"
    metrics: dict[str, float] = field(default_factory=dict)
    recipe_hash: str = ""
    parent: str = ""
    teacher: str = ""
    parents: dict[str, float] = field(default_factory=dict)
    statistics: str = ""
    provenance: str = ""
    schema_version: int = SCHEMA_VERSION
    cloverleaf_version: str = __version__


def parse_metadata(cls: type[_Metadata], path: object, text: str, *, version: int, fix: str) -> _Metadata:
    """The JSON entry of a file as the dataclass that it was written from; strict.

    Args:
        cls: the dataclass, with a field `schema_version`.
        path: names the file in messages.
        text: the entry.
        version: the only schema version that is read.
        fix: what to do about a file of another version.

    Raises:
        CheckpointError: the text is damaged, of another schema version, or has keys that the schema does not have.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: damaged metadata", str(error), "copy or make the file again") from error
    found = values.get("schema_version") if isinstance(values, dict) else None
    if found != version:
        raise CheckpointError(f"{path} has schema version {found!r}", f"this version reads {version}", fix)
    unknown = sorted(values.keys() - {known.name for known in fields(cls)})  # type: ignore[arg-type]
    if unknown:
        raise CheckpointError(f"{path}: unknown metadata {', '.join(unknown)}", "the schema does not have it", fix)
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        why = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"
        raise CheckpointError(f"{path}: damaged metadata", why, "make the file again") from error
    except ConfigError as error:  # of a part that checks itself
        raise CheckpointError(f"{path}: damaged metadata", error.what, "make the file again") from error
