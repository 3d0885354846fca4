"""What is read, and how it is augmented; every field is a `--set data.x=` or `--set augment.x=` option."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Probability = Annotated[float, Field(ge=0, le=1)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """The dataset and how its images reach the network.

    Attributes:
        source: a `data.yaml`, a COCO JSON or a folder.
        train_split, val_split: names of the splits.
        fraction: share of the training images that is used, drawn with the seed of the run, at least one image.
        image_size: side of the square training input in pixels; evaluation letterboxes to the same long side.
        batch_size: images per step over all processes.
        workers: loader processes; -1 chooses from the CPUs at hand.
        cache: keep decoded, resized images in memory or on disk.
        rectangular_eval: pad evaluation batches to their own aspect ratio instead of a square, as published.
        boxes_as_masks: with `--task instance` or `semantic` an object without outline fills its box, instead of the
            dataset being refused.
    """

    source: str = ""
    train_split: str = "train"
    val_split: str = "val"
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    image_size: Annotated[int, Field(ge=32, le=8192)] = 640
    batch_size: Annotated[int, Field(ge=1)] = 16
    workers: Annotated[int, Field(ge=-1)] = -1
    cache: Literal["none", "ram", "disk"] = "none"
    rectangular_eval: bool = True
    boxes_as_masks: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AugmentConfig:
    """Training augmentation (published implementation of YOLOv7); the defaults are its `tiny` recipe.

    Attributes:
        mosaic: probability that a sample is a mosaic.
        mosaic9: share of the mosaics that have nine tiles instead of four.
        mixup: probability that a mosaic is blended with a second one.
        copy_paste: share of the outlined objects of a mosaic that are mirrored onto it.
        paste_in: probability that objects cut from other images are pasted in (needs outlines).
        degrees: rotation range in degrees, +-.
        translate: translation range as a fraction of the size, +-.
        scale: the zoom factor is drawn from [1 - scale, 1 + scale + extra_zoom].
        extra_zoom: see `scale`; 0.1 in the published YOLOv7, 0 in YOLOR.
        shear: shear range in degrees, +-.
        perspective: range of the projective terms, +- (0 to 0.001).
        hsv_h, hsv_s, hsv_v: hue, saturation and value are multiplied by 1 + u * gain, u uniform in [-1, 1].
        flipud, fliplr: flip probabilities.
        close_mosaic: no mosaic and no mixup in the last so many epochs.
    """

    mosaic: Probability = 1.0
    mosaic9: Probability = 0.2
    mixup: Probability = 0.05
    copy_paste: Probability = 0.0
    paste_in: Probability = 0.05
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Annotated[float, Field(ge=0, le=0.9)] = 0.1
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.5
    extra_zoom: Annotated[float, Field(ge=0, le=1)] = 0.1
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    perspective: Annotated[float, Field(ge=0, le=0.01)] = 0.0
    hsv_h: Probability = 0.015
    hsv_s: Probability = 0.7
    hsv_v: Probability = 0.4
    flipud: Probability = 0.0
    fliplr: Probability = 0.5
    close_mosaic: Annotated[int, Field(ge=0)] = 0
