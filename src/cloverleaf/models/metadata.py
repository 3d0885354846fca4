"""What a weights file says about the model in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloverleaf import __version__

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsMetadata:
    """Everything that is needed to use a model besides its tensors.

    Attributes:
        model: catalog name; filled in by `save`.
        spec: the full `DetectorSpec` as plain containers; filled in by `save`.
        class_names: one per class; empty where unknown.
        category_ids: COCO category id of each class, or None where classes have no other ids.
        image_size: side of the network input that it was trained for, in pixels; None where unknown.
        normalisation: how pixels become inputs.
        task: what it was trained for.
        metrics: results on the validation split.
        recipe_hash: identifies the resolved training configuration.
        parent: the weights that training started from.
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
    image_size: int | None = None
    normalisation: str = "rgb/255"
    task: str = "detect"
    metrics: dict[str, float] = field(default_factory=dict)
    recipe_hash: str = ""
    parent: str = ""
    parents: dict[str, float] = field(default_factory=dict)
    statistics: str = ""
    provenance: str = ""
    schema_version: int = SCHEMA_VERSION
    cloverleaf_version: str = __version__
