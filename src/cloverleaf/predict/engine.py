"""What detection needs of a model, whatever runs it: PyTorch or ONNX Runtime."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from cloverleaf.deploy.input_size import fit_image_size
from cloverleaf.deploy.suppression import Suppression
from cloverleaf.errors import ConfigError
from cloverleaf.models.spec import Task
from cloverleaf.predict.device import resolve_device
from cloverleaf.predict.model import image_size_of, prepare_model
from cloverleaf.structures import Instances

if TYPE_CHECKING:
    from cloverleaf.models.detector import Detector

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Dense(NamedTuple):
    """Every prediction: boxes ``(B, N, 4)`` xyxy in input pixels and scores ``(B, N, K)``, float32."""

    boxes: Tensor
    scores: Tensor


class Found(NamedTuple):
    """What an engine's own suppression left: boxes ``(B, D, 4)``, scores ``(B, D)`` and labels ``(B, D)``, of which the
    first ``counts (B,)`` of each image are detections, by descending score."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor


class Several(NamedTuple):
    """What a model gives that has further tasks beside boxes.

    Attributes:
        boxes: predictions or detections.
        tags: ``(B, T)`` float32 probabilities of image-level labels, or None.
        maps: embeddings per level ``(B, D, H_l, W_l)``, finest first, not normalised, or None.
    """

    boxes: Dense | Found
    tags: Tensor | None = None
    maps: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What there is to know of a model before it runs.

    Attributes:
        name: of the model.
        num_classes: K.
        stride: height and width of the input are multiples of it.
        image_size: long side of the input in pixels that it was trained for, or the only one that it takes.
        fixed: it takes square inputs of ``image_size`` only.
        class_names: one per class, None where unknown.
        category_ids: category id of each class, None where classes have no other ids.
        suppression: the thresholds of its own suppression, None where it gives every prediction.
        task: what it finds: boxes (``detect``), boxes with masks (``instance``), a class per pixel (``semantic``) or
            per image (``classify``), or boxes with image-level labels or embeddings (``multi``).
        most_detections: the most objects per image that it can give; None where it has no limit of its own.
        num_tags: T, 0 for a model that gives none.
        tag_names: one per tag, None where unknown.
        embedding_strides: input pixels per cell of each map of embeddings, ascending; empty for a model without.
        trained_identities: individuals that it was trained to tell apart, by their numbers in that dataset; None where
            unknown.
    """

    name: str
    num_classes: int
    stride: int
    image_size: int
    fixed: bool = False
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    suppression: Suppression | None = None
    task: Task = "detect"
    most_detections: int | None = None
    num_tags: int = 0
    tag_names: tuple[str, ...] | None = None
    embedding_strides: tuple[int, ...] = ()
    trained_identities: tuple[int, ...] | None = None

    def choose_image_size(self, wanted: int | None) -> int:
        """``wanted``, rounded up to a multiple of the stride (and told so); `image_size` where it is None.

        Raises:
            ConfigError: the model takes another size only.
        """
        if wanted is None:
            return self.image_size
        if self.fixed and wanted != self.image_size:
            raise ConfigError(
                f"image size {wanted} does not fit {self.name}",
                f"the file was exported for {self.image_size} x {self.image_size} only",
                "leave it out, or export the weights with --dynamic",
            )
        fitted = fit_image_size(wanted, self.stride)
        if fitted != wanted:
            logger.warning("image size %d is no multiple of the stride %d: %d is used", wanted, self.stride, fitted)
        return fitted


class Engine(Protocol):
    """A model that is ready to run."""

    @property
    def info(self) -> EngineInfo:
        """What it is."""

    @property
    def device(self) -> torch.device:
        """Where it wants its input."""

    def infer(self, pixels: Tensor) -> Dense | Found:
        """``(B, 3, H, W)`` float32 RGB in [0, 1] on `device` -> predictions or detections in input pixels."""

    def several(self, pixels: Tensor) -> Several:
        """Of a model for several tasks everything that it gives, for images as for `infer`."""

    def classify(self, pixels: Tensor) -> Tensor:
        """Of a classifier the probabilities ``(B, K)`` float32 of images as for `infer`."""


def info_of(model: Detector) -> EngineInfo:
    """What a model in PyTorch says of itself."""
    facts = model.metadata
    ids = facts.category_ids if facts is not None else None
    return EngineInfo(
        name=model.spec.name,
        num_classes=model.num_classes,
        stride=model.max_stride,
        image_size=image_size_of(model),
        class_names=(tuple(facts.class_names) or None) if facts is not None else None,
        category_ids=tuple(ids) if ids else None,
        task=model.task,
        most_detections=getattr(model.spec.head, "detections", None) if model.task == "instance" else None,
        **(_further_tasks(model) if model.task == "multi" else {}),
    )


def _further_tasks(model: Detector) -> dict[str, Any]:
    """What a model for several tasks gives beside boxes."""
    head, facts = model.head, model.metadata
    classifier = head.identities  # of training; not in the form that is deployed
    known = classifier.ids.tolist() if classifier is not None else facts.identities if facts is not None else ()
    return {
        "num_tags": 0 if head.tags is None else head.tags.linear.out_features,
        "tag_names": (tuple(facts.tag_names) or None) if facts is not None and head.tags is not None else None,
        "embedding_strides": () if head.embeddings is None else tuple(head.strides),
        "trained_identities": tuple(known) if known and min(known) >= 0 else None,
    }


class TorchEngine:
    """A detector in PyTorch.

    Args:
        model: in evaluation mode, on ``device``.
        device: where it is.
        precision: of the network; boxes and scores are always float32.
    """

    def __init__(self, model: Detector, device: torch.device, precision: Precision = "fp32") -> None:
        self.model, self.device, self.precision = model, device, precision
        self.info = info_of(model)

    def infer(self, pixels: Tensor) -> Dense:
        """As `Engine.infer`."""
        boxes, scores = self.model.decode(self._raw(pixels), _size(pixels))
        return Dense(boxes.float(), scores.float())

    def several(self, pixels: Tensor) -> Several:
        """As `Engine.several`."""
        raw = self._raw(pixels)
        boxes, scores = self.model.decode(raw, _size(pixels))
        tags = None if raw.tags is None else raw.tags.float().sigmoid()
        return Several(Dense(boxes.float(), scores.float()), tags, raw.embeddings)

    def instances(self, pixels: Tensor, *, confidence: float, max_detections: int) -> list[Instances]:
        """Of a model for instances what it finds in each of the images, which are as for `infer`."""
        raw = self._raw(pixels)
        found: list[Instances] = self.model.head.instances(
            raw, _size(pixels), confidence=confidence, max_detections=max_detections
        )
        return found

    def segment(self, pixels: Tensor) -> Tensor:
        """Of a semantic model the class logits ``(B, K, H, W)`` of images as for `infer`."""
        logits: Tensor = self.model.head.segment(self._raw(pixels), _size(pixels))
        return logits.float()

    def classify(self, pixels: Tensor) -> Tensor:
        """As `Engine.classify`."""
        probabilities: Tensor = self._raw(pixels).logits.float().softmax(1)
        return probabilities

    def _raw(self, pixels: Tensor) -> Any:
        enabled = self.precision != "fp32"
        with torch.autocast(pixels.device.type, dtype=_AUTOCAST[self.precision], enabled=enabled):
            return self.model(pixels)


def _size(pixels: Tensor) -> tuple[int, int]:
    return int(pixels.shape[2]), int(pixels.shape[3])


def segmenting(engine: Engine) -> TorchEngine:
    """The engine of a model for instances or pixels, which is always one of PyTorch."""
    assert isinstance(engine, TorchEngine)
    return engine


def open_engine(
    weights: str | Path | Detector | Engine,
    *,
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
    fuse: bool = True,
) -> Engine:
    """Whatever can be run, ready to run.

    Args:
        weights: a weights file, an exported ``.onnx`` file, a detector in memory (it is copied), or an engine, which is
            returned as it is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: of the network.
        fuse: fold the training form into the faster deploy form (same results within rounding).

    Raises:
        CheckpointError: the file cannot be read.
        ConfigError: no such device here, or an exported file is asked for what it cannot change any more.
        MissingExtraError: an exported file, and onnxruntime is not installed.
    """
    if isinstance(weights, str | Path) and Path(weights).suffix.lower() == ".onnx":
        from cloverleaf.predict.onnx_engine import OnnxEngine

        asked = {f"precision {precision}": precision != "fp32", "the unfused form": not fuse}
        if any(asked.values()):
            raise ConfigError(
                f"{weights} cannot give {' or '.join(name for name, wanted in asked.items() if wanted)}",
                "an exported file is fused, with its numbers in float32",
                "leave the option out, or use the weights",
            )
        return OnnxEngine(weights, str(device))
    if isinstance(weights, str | Path | nn.Module):
        target = resolve_device(device)
        return TorchEngine(prepare_model(weights, target, fuse=fuse), target, precision)
    return weights
