"""A narrow detector of three classes whose outputs spread widely, by the rule of the golden numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cloverleaf.deploy import export as exporting
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.models.catalog import create_model, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.weights.format import save
from golden.fill import fill

NARROW = {"width": 0.25}


def narrow_model(name: str = "yolov7-tiny", num_classes: int = 3) -> Detector:
    dense = isinstance(find_spec(name).head, DenseHeadSpec)  # its width is that of the neck
    model = create_model(name, num_classes=num_classes, backbone=NARROW, neck=NARROW, head={} if dense else NARROW)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point() and "anchor" not in key:
                value.copy_(torch.from_numpy(fill(key, value.shape, 1.5)))
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
