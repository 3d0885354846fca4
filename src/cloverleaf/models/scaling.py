"""Compound scaling for concatenation-based models (arXiv 2207.02696, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloverleaf.backbones.elan import ElanSpec
from cloverleaf.errors import ConfigError
from cloverleaf.layers.elan import ElanForm
from cloverleaf.layers.style import scale_width
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.necks.elan_pan import ElanPanSpec


def compound_scale(spec: DetectorSpec, *, depth: float = 1.0, width: float = 1.0, name: str = "") -> DetectorSpec:
    """Scale the depth of the computational blocks, and the transitions by what that does to their input.

    More convolutions in an ELAN make its concatenation wider, and with it the input of the transition behind. The
    widths of all transitions (stem and outputs of the stages) follow by the same ratio; computational widths do not
    change with the depth. ``width`` multiplies both kinds of width besides.

    Args:
        spec: a detector with backbone `elan` and neck `elan-pan` whose widths are given.
        depth: factor of the 3x3 convolutions in every ELAN; the result is rounded to a whole number.
        width: factor of every width.
        name: of the result; that of ``spec`` where empty.

    Returns:
        The scaled spec; all widths are rounded up to a multiple of 8. The head follows the neck by itself.

    Raises:
        ConfigError: other parts, or widths that are left to be derived.
    """
    backbone, neck = spec.backbone, spec.neck
    if not isinstance(backbone, ElanSpec) or not isinstance(neck, ElanPanSpec) or not neck.channels or not neck.hidden:
        raise ConfigError(
            f"{spec.name} cannot be scaled by compound_scale",
            "the rule is defined for backbone 'elan' and neck 'elan-pan' with given channels and hidden widths",
            "use the `width` and `depth` options of its parts",
        )
    if depth <= 0 or width <= 0:
        raise ConfigError(f"compound_scale(depth={depth}, width={width})", "factors are positive", "correct them")
    ratio = transition_ratio(backbone, depth)
    scaled_backbone = replace(
        backbone,
        depth=_deeper(backbone.depth, depth),
        stem_channels=_scaled(backbone.stem_channels, ratio * width),
        hidden=_scaled(backbone.hidden, width),
        channels=_scaled(backbone.channels, ratio * width),
    )
    scaled_neck = replace(
        neck,
        depth=_deeper(neck.depth, depth),
        hidden=_scaled(neck.hidden, width),
        channels=_scaled(neck.channels, transition_ratio(neck, depth) * width),
    )
    return replace(spec, name=name or spec.name, backbone=scaled_backbone, neck=scaled_neck)


def transition_ratio(part: ElanSpec | ElanPanSpec, depth: float) -> float:
    """How much wider the concatenation of its ELANs becomes when their depth is multiplied by ``depth``."""
    chain = part.chain if isinstance(part, ElanPanSpec) else 1.0
    before, after = (
        ElanForm.of(part.taken, count).concat_width(1.0, chain) for count in (part.depth, _deeper(part.depth, depth))
    )
    return after / before


def _deeper(depth: int, factor: float) -> int:
    return max(round(depth * factor), 1)


def _scaled(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(scale_width(width, factor) for width in widths)
