"""From a published checkpoint file to a backbone alone, for detectors that start from it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.errors import CheckpointError
from cloverleaf.models import parts
from cloverleaf.weights.backbone import IMAGENET, BackboneMetadata
from cloverleaf.weights.importers import revcol
from cloverleaf.weights.published import provenance
from cloverleaf.weights.reader import PublishedCheckpoint, read_checkpoint


@dataclass(frozen=True, slots=True)
class ImportedBackbone:
    """A backbone and what was found in the file it came from.

    Attributes:
        backbone: the module, in float32 on the CPU.
        spec: its options.
        metadata: for `save_backbone`.
        checkpoint: what was read.
        left_out: number of tensors of everything else, by the first part of their names.
        not_finite: published names of tensors that hold infinities or NaN.
    """

    backbone: nn.Module
    spec: RevColSpec
    metadata: BackboneMetadata
    checkpoint: PublishedCheckpoint
    left_out: dict[str, int]
    not_finite: tuple[str, ...]


def import_backbone(path: str | os.PathLike[str]) -> ImportedBackbone:
    """The backbone in a published checkpoint of RevCol: a classifier, a detector, a segmenter, or nothing else.

    Args:
        path: as `read_checkpoint` reads it. In detectors and segmenters the names begin with ``backbone.``.

    Raises:
        CheckpointError: the file is refused, is of another family, or lacks tensors of the backbone.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    if not revcol.is_like(checkpoint.state):
        raise CheckpointError(
            f"{path} holds no backbone of RevCol", "only that family's backbones can be taken alone",
            "import the whole model, and give that to train --backbone-weights",
        )  # fmt: skip
    spec, backbone, left = revcol.read_backbone(str(path), checkpoint.state)
    facts = BackboneMetadata(
        backbone=parts.to_dict(spec),
        normalisation=IMAGENET,
        provenance=provenance(path, checkpoint, "the backbone", revcol.ORIGIN),
    )
    taken = {key: value for key, value in checkpoint.state.items() if key not in left}
    return ImportedBackbone(
        backbone,
        spec,
        facts,
        checkpoint,
        left_out=dict(Counter(key.partition(".")[0] for key in left)),
        not_finite=tuple(key for key, value in taken.items() if not value.isfinite().all()),
    )
