"""A narrow detector of three classes whose outputs spread widely, by the rule of the golden numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cloverleaf.backbones.revcol.backbone import RevColSpec
from cloverleaf.deploy import export as exporting
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.catalog import create_model, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.weights.format import save
from golden.fill import fill

NARROW = {"width": 0.25}
NARROW_REVCOL = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "columns": 2}


def narrow_model(name: str = "yolov7-tiny", num_classes: int = 3) -> Detector:
    spec = find_spec(name)
    head = {} if isinstance(spec.head, DenseHeadSpec) else NARROW  # its width is that of the neck
    backbone = NARROW_REVCOL if isinstance(spec.backbone, RevColSpec) else NARROW
    model = create_model(name, num_classes=num_classes, backbone=backbone, neck=NARROW, head=head)
    spread = 1.5 if spec.neck.type != "gelan-pan" else 1.0  # many layers in a row would make much of rounding
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and "anchor" not in key:
                value.copy_(torch.from_numpy(fill(key, value.shape, spread)))
    return model.eval()


def write_narrow_weights(path: Path, names: tuple[str, ...]) -> Path:
    facts = WeightsMetadata(class_names=names, category_ids=(5, 6, 9), image_size=96, provenance="painted, CC0")
    save(narrow_model(num_classes=len(names)), path, metadata=facts)
    return path


@contextmanager
def traced_once() -> Iterator[None]:
    """The exporter takes seconds and is asked once for each kind of file; all weights must be the same meanwhile."""
    known: dict[Any, bytes] = {}
    real = exporting.trace

    def trace(model: Detector, outputs: tuple[str, str], **options: Any) -> Any:
        import onnx

        key = (outputs, *sorted(options.items()))
        if key not in known:
            known[key] = real(model, outputs, **options).SerializeToString()
        return onnx.ModelProto.FromString(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", trace)
        yield
