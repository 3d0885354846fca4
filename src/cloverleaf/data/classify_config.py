"""What happens to whole images in training; every field is a `--set classify.x=` option."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Probability = Annotated[float, Field(ge=0, le=1)]
_NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ClassifyConfig:
    """Augmentation and soft targets of `--task classify`; the defaults are those that RevCol is published with.

    Attributes:
        least_area: share of the image that a crop shows at least; its sides are 3:4 to 4:3.
        fliplr, flipud: flip probabilities.
        colour_jitter: range of brightness, contrast and saturation, +-; only without `rand_augment`.
        rand_augment: RandAugment as timm writes it: `m` magnitude, `mstd` its deviation, and with `inc1` all operations
            grow with it; null for none.
        erasing: probability that a rectangle becomes noise.
        mixup, cutmix: parameter of the Beta distribution from which the share of the other image is drawn; 0 for none.
        mix_probability: of a batch to be mixed at all.
        cutmix_share: share of the mixed batches that are cut and pasted rather than blended, where both are on.
        label_smoothing: epsilon; the class has 1 - epsilon + epsilon / K, the others epsilon / K.
    """

    least_area: Annotated[float, Field(gt=0, le=1)] = 0.08
    fliplr: Probability = 0.5
    flipud: Probability = 0.0
    colour_jitter: Probability = 0.0
    rand_augment: Annotated[str, Field(pattern=r"^rand(-(m|n|p|mstd|mmax|inc)\d+(\.\d+)?)*$")] | None = (
        "rand-m9-mstd0.5-inc1"
    )
    erasing: Probability = 0.25
    mixup: _NonNegative = 0.8
    cutmix: _NonNegative = 1.0
    mix_probability: Probability = 1.0
    cutmix_share: Probability = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
