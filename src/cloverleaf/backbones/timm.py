"""Any convolutional model of timm as a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from cloverleaf.errors import ConfigError, UnknownModelError, suggest
from cloverleaf.layers.input_norm import NormalizingBackbone
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TimmSpec:
    """Options of `TimmBackbone`.

    Attributes:
        model: name in timm, e.g. ``resnet50``; ``timm/resnet50`` in the name of a composition.
        finest: maps of smaller strides are not given.
        normalize: subtract ImageNet's mean and divide by its deviation, as weights of timm expect.
        drop_path: stochastic depth in training, where the model has it.
    """

    type: Literal["timm"] = "timm"
    model: str = "resnet18"
    finest: Literal[2, 4, 8] = 4
    normalize: bool = False
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self) -> TimmBackbone:
        """The module, freshly initialised; weights are never downloaded.

        Raises:
            UnknownModelError: timm has no such model.
            ConfigError: the model gives no maps of ascending strides, or has no stochastic depth.
        """
        return TimmBackbone(self)


class TimmBackbone(NormalizingBackbone):
    """Image to the maps of a model of timm, finest first.

    Its BatchNorm layers stay when a detector is fused: which convolution each belongs to is not known in general.
    """

    def __init__(self, spec: TimmSpec) -> None:
        super().__init__(spec.normalize)
        self.body = _create(spec)
        info = self.body.feature_info
        channels, strides = info.channels(), info.reduction()
        if len(strides) < 2 or strides != sorted(set(strides)):
            raise ConfigError(
                f"timm/{spec.model} cannot be a backbone here",
                f"its maps have strides {tuple(strides)}, and a model needs maps of ascending strides",
                "choose a convolutional model with a pyramid of maps, e.g. timm/resnet18",
            )
        self.features = FeatureSpec(channels=tuple(channels), strides=tuple(strides)).since(spec.finest)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` RGB in [0, 1] -> maps of ``self.features``, finest first."""
        maps: Sequence[Tensor] = self.body(self.prepared(images))
        return tuple(maps[-len(self.features) :])


def _create(spec: TimmSpec) -> Any:
    import timm

    if not timm.is_model(spec.model):
        raise UnknownModelError(
            f"no backbone 'timm/{spec.model}'",
            "timm has no model of that name",
            suggest(f"timm/{spec.model}", [f"timm/{name}" for name in timm.list_models()]),
        )
    options = {"drop_path_rate": spec.drop_path} if spec.drop_path else {}
    try:
        return timm.create_model(spec.model, pretrained=False, features_only=True, **options)
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"timm/{spec.model} cannot be a backbone here", f"timm says: {error}",
            "choose a convolutional model with a pyramid of maps, e.g. timm/resnet18",
        ) from error  # fmt: skip
