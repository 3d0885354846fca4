"""Every model by name: the published ones, and any composition BACKBONE+NECK+HEAD."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cloverleaf.errors import UnknownModelError, suggest
from cloverleaf.models import gold_yolo, parts, revcol, segmentation, yolo_styles, yolor, yolor_paper, yolov4, yolov7
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Variant
from cloverleaf.structures import FeatureSpec

MODELS: Mapping[str, Variant] = {
    **gold_yolo.VARIANTS,
    **revcol.VARIANTS,
    **segmentation.VARIANTS,
    **yolo_styles.VARIANTS,
    **yolor.VARIANTS,
    **yolor_paper.VARIANTS,
    **yolov4.VARIANTS,
    **yolov7.VARIANTS,
}


def list_models(pattern: str = "*") -> list[str]:
    """Catalog names that match a shell-style ``pattern``, sorted, e.g. ``list_models("yolov7*")``."""
    return sorted(fnmatch.filter(MODELS, pattern))


def create_model(name: str, *, num_classes: int | None = None, **overrides: Mapping[str, Any] | str) -> Detector:
    """A freshly initialised detector.

    Args:
        name: a catalog name, or a composition such as ``elan-tiny+elan-pan+anchor``.
        num_classes: K, at least 1; None for as many as published: 80, or 1000 of a classifier from the catalog.
        **overrides: options of the parts, e.g. ``backbone={"width": 0.5}, head={"implicit": False}``; another part by
            its name: ``backbone="revcol-nano"``; what supervises the model further: ``supervision="columns"``.

    Raises:
        UnknownModelError: no model or part of that name.
        ConfigError: an unknown option, or a value of the wrong type or range.
    """
    spec = find_spec(name)
    if num_classes is not None:
        spec = replace(spec, num_classes=num_classes)
    return build_detector(spec.with_overrides(overrides))


def build_detector(spec: DetectorSpec) -> Detector:
    """The detector that ``spec`` describes, freshly initialised; in evaluation mode if it is fused."""
    backbone = spec.backbone.build()
    neck = spec.neck.build(cast(FeatureSpec, backbone.features))
    head = spec.head.build(cast(FeatureSpec, neck.features), spec.num_classes)
    if spec.fused:
        return Detector(backbone, neck, head, replace(spec, fused=False)).fused()
    if spec.supervision is None:
        return Detector(backbone, neck, head, spec)
    supervision = spec.supervision.build(backbone, tuple(cast(Any, head).strides), spec.head, spec.num_classes)
    return Detector(backbone, neck, head, spec, supervision)


class _SkipInitialisation(TorchFunctionMode):
    """Makes the functions of `torch.nn.init`, and what draws random numbers into a tensor, do nothing."""

    _DRAWING = (torch.Tensor.normal_, torch.Tensor.uniform_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ or func in self._DRAWING:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def empty_detector(spec: DetectorSpec) -> Detector:
    """As `build_detector`, but without initial values (they are arbitrary) and without drawing random numbers.

    For whoever fills in all tensors or needs the structure only.
    """
    with _SkipInitialisation():
        return build_detector(spec).eval()


def find_spec(name: str) -> DetectorSpec:
    """The spec of a catalog name, with the published classes, or of a composition, with 80.

    Raises:
        UnknownModelError: no model or part of that name.
    """
    if name in MODELS:
        return MODELS[name].spec
    if "+" in name:
        return _compose(name)
    if name in parts.BACKBONES or name in parts.PRESETS["backbone"] or name.startswith("timm/"):
        raise UnknownModelError(
            f"no model {name!r}", "it is a backbone, without neck and head",
            f"write BACKBONE+NECK+HEAD, e.g. {name}+c2f-pan+dense for objects, {name}+none+classify for whole images",
        )  # fmt: skip
    raise UnknownModelError(f"no model {name!r}", "it is not in the catalog", suggest(name, MODELS))


def _compose(name: str) -> DetectorSpec:
    names = name.split("+")
    if len(names) != len(parts.TABLES):
        raise UnknownModelError(
            f"no model {name!r}",
            "a composition has three parts",
            "write BACKBONE+NECK+HEAD, e.g. elan-tiny+elan-pan+anchor",
        )
    chosen: dict[str, Any] = {}
    for part, choice in zip(parts.TABLES, names, strict=True):
        try:
            chosen[part] = parts.named(part, choice)
        except UnknownModelError as error:
            raise UnknownModelError(f"no model {name!r}", f"there is no {part} {choice!r}", error.fix) from None
    return DetectorSpec(name=name, **chosen)
