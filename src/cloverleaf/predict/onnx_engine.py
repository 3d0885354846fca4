"""An exported file as an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cloverleaf.deploy.onnx_file import Array, OnnxFile
from cloverleaf.models.spec import Task
from cloverleaf.predict.engine import Dense, EngineInfo, Found, Several

_TASKS: Mapping[str, Task] = {"detect": "detect", "classify": "classify", "multi": "multi"}  # that can be exported


class OnnxEngine:
    """Runs an exported file in ONNX Runtime; the input comes from the CPU.

    Args:
        path: the file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; the latter need ONNX Runtime's package for GPUs.

    Raises:
        CheckpointError: the file cannot be read, or was not written by `export`.
        ConfigError: ONNX Runtime has nothing for the device.
        MissingExtraError: onnxruntime is not installed.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        self.file = OnnxFile(path, device)
        facts = self.file.metadata
        self.info = EngineInfo(
            name=str(path),
            num_classes=facts.num_classes,
            stride=facts.stride,
            image_size=facts.image_size,
            fixed=not facts.dynamic,
            class_names=facts.class_names or None,
            category_ids=facts.category_ids or None,
            suppression=facts.suppression,
            task=_TASKS[facts.task],
            num_tags=facts.num_tags,
            tag_names=facts.tag_names or None,
            embedding_strides=facts.embedding_strides,
            trained_identities=facts.identities or None,
        )

    def infer(self, pixels: Tensor) -> Dense | Found:
        """As `Engine.infer`; any number of images, also where the file takes a fixed one."""
        return self.several(pixels).boxes

    def several(self, pixels: Tensor) -> Several:
        """As `Engine.several`; any number of images."""
        outputs = [torch.from_numpy(array) for array in self._run(np.ascontiguousarray(pixels.numpy()))]
        count = 2 if self.info.suppression is None else 4
        boxes = Dense(*outputs[:2]) if self.info.suppression is None else Found(*outputs[:4])
        tags = outputs[count] if self.info.num_tags else None
        maps = outputs[count + (tags is not None) :]
        return Several(boxes, tags, tuple(maps) or None)

    def classify(self, pixels: Tensor) -> Tensor:
        """As `Engine.classify`; any number of images."""
        [probabilities] = self._run(np.ascontiguousarray(pixels.numpy()))
        return torch.from_numpy(probabilities)

    def _run(self, images: Array) -> list[Array]:
        """In portions of the file's batch size, the last one filled up with black images."""
        size = self.file.metadata.batch_size
        if size is None or size == len(images):
            return self.file.run(images)
        parts = []
        for start in range(0, len(images), size):
            portion = images[start : start + size]
            empty = np.zeros((size - len(portion), *portion.shape[1:]), portion.dtype)
            outputs = self.file.run(np.concatenate((portion, empty)))
            parts.append([output[: len(portion)] for output in outputs])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
