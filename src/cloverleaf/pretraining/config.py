"""A pre-training run as one frozen, typed value: recipes return it, `--set` changes it, `config.yaml` keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.training.config import RuntimeConfig

_STRICT = ConfigDict(extra="forbid")
_Positive = Annotated[float, Field(gt=0)]
_NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ImagesConfig:
    """The images and how they reach the network.

    Attributes:
        source: a folder, searched with everything below it, or a `data.yaml` or COCO JSON, of which one split is used.
        split: of a dataset.
        image_size: side of the square input in pixels.
        batch_size: images per step over all processes.
        workers: loader processes; -1 chooses from the CPUs at hand.
        scale: least share of an image's area that a crop covers.
        fliplr: probability of mirroring.
        normalize: `none` gives the network [0, 1] as detectors do; `imagenet` the published form, less ImageNet's mean
            and over its deviation.
    """

    source: str = ""
    split: str = "train"
    image_size: Annotated[int, Field(ge=32, le=4096)] = 224
    batch_size: Annotated[int, Field(ge=1)] = 64
    workers: Annotated[int, Field(ge=-1)] = -1
    scale: Annotated[float, Field(gt=0, le=1)] = 0.67
    fliplr: Annotated[float, Field(ge=0, le=1)] = 0.5
    normalize: Literal["none", "imagenet"] = "none"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MaskConfig:
    """What is hidden.

    Attributes:
        ratio: share of the cells of each image.
        patch_size: side of a cell in pixels, a multiple of the backbone's coarsest stride; 0 takes that stride.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.6
    patch_size: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DecoderConfig:
    """The decoder, which is thrown away after the run.

    Attributes:
        width: at the coarsest map, halved with every doubling of the resolution; 0 takes the width of that map.
    """

    width: Annotated[int, Field(ge=0, le=4096)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LambConfig:
    """LAMB with a warmed-up cosine (published implementation of arXiv 2301.03580).

    Attributes:
        lr: peak learning rate for 256 images a step; scaled by the batch.
        beta1, beta2, eps: of the moments.
        weight_decay, weight_decay_end: at the start and at the end, along a cosine.
        clip_norm: largest norm of all gradients together; 0 for no clipping.
        warmup_epochs: length of the warm-up.
    """

    lr: _Positive = 2e-4
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    eps: _Positive = 1e-6
    weight_decay: _NonNegative = 0.04
    weight_decay_end: _NonNegative = 0.2
    clip_norm: _NonNegative = 5.0
    warmup_epochs: _NonNegative = 40.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PretrainConfig:
    """Everything that decides a pre-training run.

    Attributes:
        recipe: the recipe that these values started from.
        backbone: its options, the name under ``type``, e.g. ``{"type": "efficient-rep", "width": 0.5}``.
        epochs: passes over the images.
        seed: of weights, order, crops and masks.
        pictures: reconstructions are drawn of so many images.
    """

    recipe: str = ""
    backbone: dict[str, Any] = Field(default_factory=dict)
    epochs: Annotated[int, Field(ge=1)] = 1600
    seed: Annotated[int, Field(ge=0)] = 0
    pictures: Annotated[int, Field(ge=1, le=64)] = 8
    output: str = ""
    data: ImagesConfig = Field(default_factory=ImagesConfig)
    mask: MaskConfig = Field(default_factory=MaskConfig)
    decoder: DecoderConfig = Field(default_factory=DecoderConfig)
    optimizer: LambConfig = Field(default_factory=LambConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)

    @property
    def output_dir(self) -> Path:
        """The run folder."""
        return Path(self.output)
