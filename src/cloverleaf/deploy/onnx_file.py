"""An exported file, open in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.cpus import usable_cpus
from cloverleaf.deploy.extras import require
from cloverleaf.deploy.metadata import ExportMetadata, from_json
from cloverleaf.deploy.onnx_graph import MAPS
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models.metadata import KEY

Array = npt.NDArray[Any]
OUTPUTS: Mapping[str, tuple[str, ...]] = {  # by the task; `further_outputs` follow
    "detect": ("boxes", "scores"),
    "classify": ("probabilities",),
    "multi": ("boxes", "scores"),
}


def further_outputs(metadata: ExportMetadata) -> tuple[str, ...]:
    """What a file for several tasks gives beside boxes: ``tags``, and ``embeddings_8``, ... of each stride."""
    maps = (f"{MAPS}{stride}" for stride in metadata.embedding_strides)
    return (*(["tags"] if metadata.num_tags else []), *maps)


class OnnxFile:
    """Runs the network of a file that `export` wrote.

    Attributes:
        path: the file.
        metadata: what it says about itself.
        shapes: of its input and its outputs by name; a word stands for an open size.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:1``; the latter need ONNX Runtime's package for GPUs. ``auto`` takes CUDA
            where there is that.

    Raises:
        CheckpointError: the file is absent, damaged, or was not written by `export`.
        ConfigError: ONNX Runtime has nothing for the device.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no weights file {self.path}", "there is no such file", "check the path")
        self._session = open_session(self.path, device)
        self.metadata = _metadata_of(self.path, self._session)
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        self.shapes: dict[str, tuple[int | str, ...]] = {end.name: tuple(end.shape) for end in ends}
        self._input = ends[0].name

    def run(self, images: npt.NDArray[np.float32]) -> list[Array]:
        """``(B, 3, H, W)`` float32 RGB in [0, 1] -> boxes ``(B, N, 4)`` and scores ``(B, N, K)``; with suppression
        inside boxes ``(B, D, 4)``, scores ``(B, D)``, labels ``(B, D)`` and counts ``(B,)``; of a classifier
        probabilities ``(B, K)``. One for several tasks gives `further_outputs` besides: probabilities of tags
        ``(B, T)``, and embeddings of each level ``(B, D, H_l, W_l)``."""
        outputs: list[Array] = self._session.run(None, {self._input: images})
        return outputs


def open_session(source: Path | bytes, device: str = "cpu") -> Any:
    """An ONNX Runtime session for a file or its bytes.

    CPU threads are the CPUs that this process may use, or ``OMP_NUM_THREADS`` where it is set.

    Raises:
        CheckpointError: it is no ONNX model, or one that this ONNX Runtime cannot run.
        ConfigError: ONNX Runtime has nothing for the device.
        MissingExtraError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime")
    state = require("onnxruntime.capi.onnxruntime_pybind11_state")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = session_threads()
    options.log_severity_level = 3  # errors; they are raised, too
    refused = (
        state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoModel, state.NoSuchFile,
        state.NotImplemented, state.RuntimeException,
    )  # fmt: skip
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=providers
        )
    except refused as error:
        name = "the exported model" if isinstance(source, bytes) else str(source)
        raise CheckpointError(
            f"{name} cannot be opened by ONNX Runtime", str(error).splitlines()[0], "copy or export it again"
        ) from error


def session_threads() -> int:
    """CPU threads of a session."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else usable_cpus()


def _providers(device: str, available: list[str]) -> list[Any]:
    """ONNX Runtime's names for a device."""
    kind, _, index = (f"cuda:{device}" if device.isdecimal() else device).partition(":")
    if kind == "auto":
        kind = "cuda" if "CUDAExecutionProvider" in available else "cpu"
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    raise ConfigError(
        f"an .onnx file cannot run on {device} here",
        f"this ONNX Runtime has {', '.join(available)}",
        "use cpu, or install onnxruntime-gpu in place of onnxruntime",
    )


def _metadata_of(path: Path, session: Any) -> ExportMetadata:
    entries = session.get_modelmeta().custom_metadata_map
    if KEY not in entries:
        raise CheckpointError(
            f"{path} was not exported by cloverleaf",
            f"it has no {KEY!r} metadata, so its classes, input and outputs are unknown",
            "export weights with cloverleaf export",
        )
    metadata = from_json(path, entries[KEY])
    boxes = [*OUTPUTS.get(metadata.task, ()), *(["labels", "count"] if metadata.suppression else [])]
    expected = [*boxes, *further_outputs(metadata)]
    found = [output.name for output in session.get_outputs()]
    if found != expected or len(session.get_inputs()) != 1:
        raise CheckpointError(
            f"{path} does not fit its own metadata", f"expected outputs {expected}, found {found}", "export it again"
        )
    return metadata
