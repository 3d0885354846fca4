"""Every model of the catalog can be exported; `export` itself compares the file with PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloverleaf.deploy.export import export
from cloverleaf.models.catalog import MODELS, list_models
from cloverleaf.predict.engine import open_engine
from narrow_weights import narrow_model

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

DETECTORS = [name for name in list_models() if MODELS[name].spec.task == "detect"]
QUICK = (
    "yolov7-w6"  # four levels and an auxiliary head; the exporter takes seconds, the others wait for `make test-all`
)
NAMES = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow)
         for name in (*(name for name in list_models() if MODELS[name].spec.task == "detect"),
                      "elan-tiny+elan-pan+anchor")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_exports_with_suppression_inside(name: str, tmp_path: Path) -> None:
    model = narrow_model(name)
    size = 2 * model.max_stride
    result = export(model, tmp_path / "model.onnx", image_size=size, batch_size=2, nms=True, confidence=0.1)
    assert result.parity.boxes < 1e-4 and result.parity.scores < 1e-4 and (result.parity.detections or 0) > 0
    info = open_engine(result.path).info
    assert (info.stride, info.num_classes, info.image_size, info.fixed) == (model.max_stride, 3, size, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6", "yolov7-e6e", "gold-yolo-n", "gold-yolo-l"])
def test_exports_with_open_sizes(name: str, tmp_path: Path) -> None:
    model = narrow_model(name)
    stride = model.max_stride
    result = export(model, tmp_path / "model.onnx", image_size=3 * stride, dynamic=True)
    assert result.parity.shapes == ((1, 3, 3 * stride, 3 * stride), (3, 3, stride, 2 * stride))
    assert result.parity.boxes < 1e-4 and result.parity.scores < 1e-4
