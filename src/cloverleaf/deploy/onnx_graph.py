"""A detector as an ONNX graph, with the decoding inside."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cloverleaf.deploy.extras import require
from cloverleaf.errors import ExportError
from cloverleaf.models.detector import Detector

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18  # the oldest that has all we use, so that old runtimes can read the file
INPUT = "images"
# Names of open sizes, by the number of axes: probabilities, predictions, images. Maps have sizes of their own.
_OPEN = {2: ("batch", None), 3: ("batch", "predictions", None), 4: ("batch", None, "height", "width")}
MAPS = "embeddings_"  # begins the names of maps of embeddings; the stride follows


class DecodedDetector(nn.Module):
    """The network and the decoding of its output as one module."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` float RGB in [0, 1] -> boxes ``(B, N, 4)`` xyxy in input pixels, scores ``(B, N, K)``."""
        return self.model.decode(self.model(images), (images.shape[2], images.shape[3]))


class DecodedSeveral(nn.Module):
    """The network, the decoding of its boxes, and what it gives beside them, as one module."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` float RGB in [0, 1] -> boxes and scores as `DecodedDetector`, probabilities of tags
        ``(B, T)`` if there are some, and per level embeddings ``(B, D, H_l, W_l)`` if there are some."""
        raw = self.model(images)
        boxes, scores = self.model.decode(raw, (images.shape[2], images.shape[3]))
        tags = () if raw.tags is None else (raw.tags.sigmoid(),)
        return (boxes, scores, *tags, *(raw.embeddings or ()))


class Classifier(nn.Module):
    """The network and the probabilities of its classes as one module."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float RGB in [0, 1] -> probabilities ``(B, K)``."""
        probabilities: Tensor = self.model(images).logits.softmax(1)
        return probabilities


def deployable(model: Detector) -> nn.Module:
    """What is written of a model: `DecodedDetector`, `DecodedSeveral` or `Classifier`."""
    forms = {"classify": Classifier, "multi": DecodedSeveral}
    return forms.get(model.task, DecodedDetector)(model).eval()


def trace(model: Detector, outputs: tuple[str, ...], *, image_size: int, batch_size: int | None) -> ModelProto:
    """The graph of a fused detector or classifier, made by PyTorch's `torch.export`-based exporter.

    Args:
        model: in evaluation mode on the CPU.
        outputs: names for what `deployable` gives.
        image_size: side of the square input where the batch size is given.
        batch_size: images per run; None leaves the number of images, their height and their width open.

    Raises:
        ExportError: the exporter gave up.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    require("onnx", "onnxscript")
    if batch_size is None:
        # Three different sizes above one, so that none is taken for a constant or for another one.
        stride = model.max_stride
        example = torch.zeros(2, 3, 4 * stride, 3 * stride)
        sides = {2: stride * torch.export.Dim("rows"), 3: stride * torch.export.Dim("columns")}
        shapes = ({0: torch.export.Dim("batch"), **sides},)
    else:
        example, shapes = torch.zeros(batch_size, 3, image_size, image_size), None
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                deployable(model), (example,), input_names=[INPUT], output_names=list(outputs),
                opset_version=OPSET, dynamo=True, dynamic_shapes=shapes, verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        why = str(error).strip().splitlines()[0]
        raise ExportError(f"{model.spec.name} cannot be exported", why, "report it with the model's name") from error
    assert program is not None
    proto: ModelProto = program.model_proto
    _tidy(proto, dynamic=batch_size is None)
    return proto


def _tidy(proto: ModelProto, *, dynamic: bool) -> None:
    """Drop what tells of the exporting machine, and give open sizes their names."""
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    graph.ClearField("value_info")  # runtimes infer it themselves, and the exporter's symbols are unreadable
    if dynamic:
        for value in (*graph.input, *graph.output):
            axes = value.type.tensor_type.shape.dim
            stride = value.name.removeprefix(MAPS) if value.name.startswith(MAPS) else ""
            for dimension, name in zip(axes, _OPEN[len(axes)], strict=True):
                if name is not None:
                    dimension.dim_param = f"{name}_{stride}" if stride and name != "batch" else name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
