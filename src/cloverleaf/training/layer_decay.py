"""Layer-wise decay of the learning rate: the earlier a layer of the backbone, the smaller its steps.

For backbones that start from pre-trained weights (arXiv 2106.08254, section 3.1; used by RevCol, 2212.11696, for
fine-tuning, detection and segmentation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from cloverleaf.backbones.revcol.backbone import RevCol
from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import BackboneSpec

Depths = dict[str, int]  # by the name of a parameter


def rate_scales(model: Detector, decay: float) -> dict[str, float]:
    """Factor of the learning rate of every parameter of ``model`` by name: decay ^ (layers above it).

    The deepest layers of the backbone have ``decay``, all that follows the backbone 1.

    Args:
        model: whose parameters are to be trained.
        decay: in (0, 1].
    """
    depths = backbone_depths(model.backbone, model.spec.backbone)
    above = max(depths.values(), default=-1) + 1
    names = (name for name, _ in model.named_parameters())
    return {name: decay ** (above - depths.get(name.removeprefix("backbone."), above)) for name in names}


def backbone_depths(backbone: nn.Module, spec: BackboneSpec) -> Depths:
    """The number of the layer, from 0, to which every parameter of a backbone belongs.

    RevCol has its published numbering: the stem is 0, and in column j, counted from 0, the block with the running
    index i has 1 + i + j, the fusion of a level the number of the level's first block, and the scales 1 + j; so
    columns overlap. Backbones of timm have the numbering that timm gives them. In any other one each part of it (the
    stem, then each stage) is a layer.

    Args:
        backbone: the module.
        spec: what it was built from.
    """
    if isinstance(backbone, RevCol):
        return _named(backbone, _revcol_layers(backbone))
    if isinstance(spec, TimmSpec):
        body = cast(nn.Module, backbone.body)
        return {f"body.{name}": depth for name, depth in (_timm_depths(body, spec.model) or _by_parts(body)).items()}
    return _by_parts(backbone)


def _revcol_layers(backbone: RevCol) -> Iterator[tuple[int, nn.Module]]:
    yield 0, backbone.stem
    for j, column in enumerate(backbone.columns):
        depth = 1 + j
        yield depth, cast(nn.Module, column.scales)
        for level in cast(Iterable[Any], column.levels):
            yield depth, level.fusion
            for block in level.blocks:
                yield depth, block
                depth += 1


def _by_parts(backbone: nn.Module) -> Depths:
    """Lists of modules are opened, as their members come one after the other."""
    parts: list[nn.Module] = []
    for child in backbone.children():
        parts.extend(child if isinstance(child, nn.ModuleList) else [child])
    learning = [part for part in parts if any(True for _ in part.parameters())]
    return _named(backbone, enumerate(learning))


def _timm_depths(body: nn.Module, name: str) -> Depths:
    """Empty where timm has no numbering for the model."""
    import timm
    from timm.models import group_parameters

    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False)
    matcher = getattr(whole, "group_matcher", None)
    if matcher is None:
        return {}
    numbers: Mapping[str, int] = group_parameters(whole, matcher(coarse=False), reverse=True)
    flat = {key.replace(".", "_"): number for key, number in numbers.items()}  # a body that gives maps is flattened
    own = {key: flat.get(key.removeprefix("model.").replace(".", "_")) for key, _ in body.named_parameters()}
    known = {key: number for key, number in own.items() if number is not None}
    return known if len(known) == len(own) else {}


def _named(backbone: nn.Module, layers: Iterable[tuple[int, nn.Module]]) -> Depths:
    """What stands in no layer, such as a parameter of the backbone itself, is of the first."""
    depths = {id(parameter): depth for depth, layer in layers for parameter in layer.parameters()}
    return {name: depths.get(id(parameter), 0) for name, parameter in backbone.named_parameters()}
