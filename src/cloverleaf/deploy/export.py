"""Write a model in a deployable format, check what was written, and leave nothing behind that fails."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from cloverleaf import atomic
from cloverleaf.deploy.extras import require
from cloverleaf.deploy.fuse import fuse
from cloverleaf.deploy.input_size import check_image_size, trained_image_size
from cloverleaf.deploy.metadata import ExportMetadata, to_json
from cloverleaf.deploy.onnx_file import OUTPUTS, further_outputs, open_session
from cloverleaf.deploy.onnx_graph import INPUT, deployable, trace
from cloverleaf.deploy.suppression import DENSE_OUTPUTS, Suppression, with_suppression
from cloverleaf.deploy.verify import (
    Parity,
    compare_dense,
    compare_detections,
    compare_further,
    compare_probabilities,
    sample_images,
)
from cloverleaf.errors import ConfigError
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import KEY, WeightsMetadata

if TYPE_CHECKING:
    from onnx import ModelProto

FORMATS = ("onnx",)
_FEW = 20  # below so many detections on the test images a suppression is also checked at a lower confidence


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A file that was written and checked.

    Attributes:
        path: the file.
        metadata: what it says about itself.
        parity: how far it is from the model.
        seconds: that it took.
    """

    path: Path
    metadata: ExportMetadata
    parity: Parity
    seconds: float


def export(
    weights: str | Path | Detector,
    output: str | Path | None = None,
    *,
    format: Literal["onnx"] = "onnx",
    image_size: int | None = None,
    batch_size: int = 1,
    dynamic: bool = False,
    nms: bool = False,
    confidence: float | None = None,
    iou: float | None = None,
    max_detections: int | None = None,
) -> ExportResult:
    """Write the fused model with its decoding as a file for other runtimes, and compare both on the same images.

    Inputs are ``images (B, 3, H, W)`` float32 RGB in [0, 1], outputs ``boxes (B, N, 4)`` xyxy in input pixels and
    ``scores (B, N, K)``. With ``nms`` they are ``boxes (B, D, 4)``, ``scores (B, D)``, ``labels (B, D)`` and
    ``count (B,)``: the detections of `ops.nms.batched_nms` by descending score, filled up with zeros and the label -1.
    A classifier has ``probabilities (B, K)``. A model for several tasks has further outputs: ``tags (B, T)``,
    probabilities, and per level ``embeddings_8 (B, D, H / 8, W / 8)``, ..., of which `ops.embeddings.sample_embeddings`
    reads the one that belongs to a box. `Predictor` and `evaluate` open the file like weights.

    Args:
        weights: a weights file, or a detector in memory (not changed).
        output: the file; None puts it beside the weights.
        format: of the file.
        image_size: side of the square input in pixels; None takes the one the weights were trained with.
        batch_size: images per run.
        dynamic: leave number, height and width of the images open (multiples of the model's stride).
        nms: put the non-maximum suppression inside.
        confidence: with ``nms``, boxes scored at or below it are dropped; 0.25 by default.
        iou: with ``nms``, a box goes when its IoU with a better one of its class is above it; 0.45 by default.
        max_detections: with ``nms``, D; 300 by default.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: settings that do not fit the model or each other.
        ExportError: the model cannot be exported, or the file fails the comparison (it is removed then).
        MissingExtraError: the packages of the ``deploy`` extra are not installed.
    """
    start = time.perf_counter()
    suppression = _suppression(nms, confidence=confidence, iou=iou, max_detections=max_detections)
    if format not in FORMATS:
        raise ConfigError(f"no format {format!r}", f"Cloverleaf writes {', '.join(FORMATS)}", "use onnx")
    if batch_size < 1 or (dynamic and batch_size != 1):
        why = "a dynamic file takes any number of images" if dynamic else "wanted 1 or more"
        raise ConfigError(f"batch size {batch_size} does not fit", why, "leave it out")
    path = _target(weights, output)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package)
    model, parent = _open(weights, nms)
    metadata = _describe(model, parent, image_size, None if dynamic else batch_size, suppression)
    outputs = (*(DENSE_OUTPUTS if suppression else OUTPUTS[model.task]), *further_outputs(metadata))
    dense = trace(model, outputs, image_size=metadata.image_size, batch_size=metadata.batch_size)
    proto = with_suppression(dense, suppression, model.num_classes) if suppression else dense
    proto.producer_name, proto.producer_version = "cloverleaf", metadata.cloverleaf_version
    proto.graph.name = metadata.model
    proto.metadata_props.add(key=KEY, value=to_json(metadata))
    with atomic.staged(path) as temporary:
        atomic.write_new(temporary, proto.SerializeToString())
        parity = _verify(model, temporary, dense, metadata)
    return ExportResult(path, metadata, parity, time.perf_counter() - start)


def _suppression(nms: bool, **given: float | None) -> Suppression | None:
    """The thresholds, checked."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if nms:
        return Suppression(**chosen)  # type: ignore[arg-type]
    if chosen:
        raise ConfigError(
            f"{' and '.join(chosen)} would do nothing",
            "a file without NMS gives all boxes and scores, thresholds come with its use",
            "add nms to put it inside, or leave them out",
        )
    return None


def _target(weights: str | Path | Detector, output: str | Path | None) -> Path:
    """Where the file goes."""
    if isinstance(weights, str | Path) and Path(weights).suffix.lower() == ".onnx":
        raise ConfigError(
            f"{weights} is exported already", "only weights can be exported", "give the .safetensors file"
        )
    if output is None:
        if isinstance(weights, Detector):
            raise ConfigError("no output file", "a detector in memory has no name to take over", "give output")
        return Path(weights).with_suffix(".onnx")
    path = Path(output)
    if path.suffix.lower() != ".onnx" or path.is_dir():
        raise ConfigError(
            f"{path} cannot be the exported file", "its name must end in .onnx", f"use {path.with_suffix('.onnx')}"
        )
    return path


def _open(weights: str | Path | Detector, nms: bool) -> tuple[Detector, str]:
    """The fused model on the CPU in float32, and the name of its file."""
    from cloverleaf.weights.format import load

    parent = "" if isinstance(weights, Detector) else os.path.basename(weights)  # noqa: PTH119
    model = weights if isinstance(weights, Detector) else load(weights)
    if model.task not in OUTPUTS:
        raise ConfigError(
            f"{parent or model.spec.name} cannot be exported", f"it is a model for --task {model.task}",
            "export detectors and classifiers only; predict and val take the weights as they are",
        )  # fmt: skip
    if nms and model.task == "classify":
        raise ConfigError(
            f"{parent or model.spec.name} has no boxes to suppress", f"it is a model for --task {model.task}",
            "leave nms out",
        )  # fmt: skip
    return fuse(model).cpu().float(), parent


def _describe(
    model: Detector, parent: str, image_size: int | None, batch_size: int | None, suppression: Suppression | None
) -> ExportMetadata:
    known = model.metadata or WeightsMetadata()
    if image_size is None:
        size = trained_image_size(known.image_size, model.max_stride)
    else:
        size = check_image_size(image_size, model.max_stride, model.spec.name)
    return ExportMetadata(
        model=model.spec.name, num_classes=model.num_classes, class_names=known.class_names,
        category_ids=known.category_ids, image_size=size, batch_size=batch_size, dynamic=batch_size is None,
        stride=model.max_stride, normalisation=known.normalisation, suppression=suppression, form=model.spec.form,
        task=model.task, provenance=known.provenance, parent=parent,
        **(_further(model) if model.task == "multi" else {}),
    )  # fmt: skip


def _further(model: Detector) -> dict[str, Any]:
    """What a model for several tasks says of itself."""
    known, head = model.metadata or WeightsMetadata(), model.head
    return {
        "num_tags": 0 if head.tags is None else head.tags.linear.out_features,
        "tag_names": known.tag_names if head.tags is not None else (),
        "embedding_strides": () if head.embeddings is None else tuple(head.strides),
        "identities": known.identities,
    }


def _verify(model: Detector, path: Path, dense: ModelProto, metadata: ExportMetadata) -> Parity:
    """Compare on one batch, or on two of different number, height and width where these are open."""
    size, stride = metadata.image_size, metadata.stride
    shapes = [(metadata.batch_size or 1, size, size)]
    if metadata.dynamic:
        half = size // (2 * stride)
        shapes.append((3, max(half, 1) * stride, (half + 1) * stride))
    decoded = deployable(model)
    whole = open_session(path)
    before = open_session(dense.SerializeToString()) if metadata.suppression else whole
    total = Parity(0.0, 0.0, 0.0)
    for seed, (batch, height, width) in enumerate(shapes):
        images, side = sample_images(batch, (height, width), seed), max(height, width)
        feed = {INPUT: images.numpy()}
        with torch.inference_mode():
            expected = decoded(images)
        if model.task == "classify":
            parity = compare_probabilities(expected, whole.run(None, feed))
            total = total.merged(replace(parity, shapes=(images.shape,)))
            continue
        dense_found, boxes = before.run(None, feed), (expected[0], expected[1])
        total = total.merged(replace(compare_dense(boxes, dense_found[:2], side), shapes=(images.shape,)))
        found = dense_found if metadata.suppression is None else whole.run(None, feed)
        if further := further_outputs(metadata):
            total = total.merged(compare_further(expected[2:], found[-len(further) :]))
        if metadata.suppression is None:
            continue
        parity = compare_detections(boxes, found[:4], metadata.suppression, side)
        total = total.merged(parity)
        if (parity.detections or 0) < _FEW:  # nothing, or next to it, would prove nothing
            lower = replace(metadata.suppression, confidence=_confidence_of_some(expected[1]))
            probe = open_session(with_suppression(dense, lower, model.num_classes).SerializeToString())
            total = total.merged(compare_detections(boxes, probe.run(None, feed)[:4], lower, side))
    return total


def _confidence_of_some(scores: torch.Tensor) -> float:
    """A confidence above which there are some fifty predictions per image, and not on the score of one of them."""
    best = scores.amax(2).flatten()
    return 0.99 * float(best.topk(min(50 * len(scores), len(best))).values[-1].clamp(0, 1))
