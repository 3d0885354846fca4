"""What is inspected: a model, and images at the size of its input."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.backbones.revcol.backbone import RevCol
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.models.catalog import create_model
from cloverleaf.models.detector import Detector
from cloverleaf.predict.sources import Picture, find_sources, read_ahead
from cloverleaf.structures import FeatureSpec
from cloverleaf.weights.format import load

Maps = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """Options of `inspect`.

    Attributes:
        only: kinds of inspection; None for all that apply to the model.
        image_size: side of the square that is cut from the middle of every image, in pixels.
        max_images: at most so many, evenly chosen.
        fit_decoder: steps of fitting a decoder to each column; None for 300 where the weights hold no decoders.
        compare: another model whose backbone's coarsest map is decoded in the same way.
        device: where it runs.
        seed: of models that are named and not loaded, and of fitted decoders.
    """

    only: tuple[str, ...] | None = None
    image_size: int = 128
    max_images: int = 64
    fit_decoder: int | None = None
    compare: str | None = None
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """A model in evaluation mode and its input.

    Attributes:
        name: of the model, for titles.
        model: on the device.
        images: ``(n, 3, S, S)`` float32 RGB in [0, 1], on the CPU; n is 0 where none are given.
        sources: the files they come from.
        device: where it runs.
        compared: another model with the same images, or None.
    """

    name: str
    model: Detector
    images: Tensor
    sources: tuple[str, ...]
    device: torch.device
    compared: Subject | None = None

    @property
    def columns(self) -> int:
        """Of its backbone; 1 where it has none."""
        return len(self.model.backbone.columns) if isinstance(self.model.backbone, RevCol) else 1

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Maps]:
        """Maps of every column, finest first; where there are no columns, those of the backbone alone."""
        backbone = self.model.backbone
        images = images.to(self.device)
        if isinstance(backbone, RevCol):
            return backbone.forward_columns(images, range(len(backbone.columns) - 1))
        return [tuple(backbone(images))[: len(cast(FeatureSpec, backbone.features))]]

    def label(self, column: int) -> str:
        """Of a column (from 0) in titles and tables, where they count from 1."""
        return f"column {column + 1}" if self.columns > 1 else "backbone"


def open_model(model: str | os.PathLike[str] | Detector, seed: int) -> tuple[str, Detector]:
    """Its name, and the model of a weights file or, freshly initialised, of a name.

    Raises:
        CheckpointError: the weights cannot be read.
        UnknownModelError: no such model.
        ConfigError: an exported file.
    """
    if isinstance(model, Detector):
        return model.spec.name, model.eval()
    text = os.fspath(model)
    if text.lower().endswith(".onnx"):
        raise ConfigError(
            f"{text} cannot be inspected", "an exported file has no columns and levels any more",
            "give the .safetensors file",
        )  # fmt: skip
    if Path(text).is_file() or text.endswith(".safetensors"):
        loaded = load(text)
        return f"{loaded.spec.name} ({Path(text).name})", loaded.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return f"{text} (not trained)", create_model(text).eval()


def read_squares(
    sources: Sequence[str | os.PathLike[str]], side: int, most: int, say: Callable[[str], None]
) -> tuple[Tensor, tuple[str, ...]]:
    """``(n, 3, side, side)`` in [0, 1], the middle of images, and their names; says what cannot be read.

    Raises:
        DataError: no image at all.
    """
    found = find_sources(sources)
    paths = list(found.images)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))]
    for left_out in (*found.unreadable, *(f"{video}: it is a video" for video in found.videos)):
        say(f"left out {left_out}")
    squares, names = [], []
    for path, picture in read_ahead(chosen):
        if isinstance(picture, Picture):
            squares.append(_square(picture.pixels, side))
            names.append(str(path))
        else:
            say(f"left out {picture}")
    if not squares:
        raise DataError(
            "no image to look at", "none of the given files is an image that can be read",
            "name images or folders of them",
        )  # fmt: skip
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous() / 255, tuple(names)


def no_squares(side: int) -> tuple[Tensor, tuple[str, ...]]:
    """What `read_squares` gives, of no images."""
    return torch.empty(0, 3, side, side), ()


def _square(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    short = min(image.shape[:2])
    top, left = (image.shape[0] - short) // 2, (image.shape[1] - short) // 2
    cut = image[top : top + short, left : left + short]
    method = cv2.INTER_AREA if short > side else cv2.INTER_LINEAR
    return cv2.resize(cut, (side, side), interpolation=method).astype(np.uint8)
