"""The ELAN family and compound scaling (arXiv 2207.02696, sections 3.1 and 3.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cloverleaf.backbones.elan import ElanSpec
from cloverleaf.errors import ConfigError
from cloverleaf.layers.elan import Elan, ElanForm, ExtendedElan, GroupedElan
from cloverleaf.layers.style import Style
from cloverleaf.models.catalog import MODELS, create_model
from cloverleaf.models.scaling import compound_scale, transition_ratio
from cloverleaf.models.yolov7 import BASE, W6
from cloverleaf.necks.elan_pan import ElanPanSpec
from contract.test_catalog import with_random_statistics


@pytest.mark.parametrize(
    ("form", "taken"),
    [
        (ElanForm.every(2), (3, 2, 1, 0)),
        (ElanForm.every(4), (5, 4, 3, 2, 1, 0)),
        (ElanForm.every_second(4), (5, 3, 1, 0)),
        (ElanForm.every_second(6), (7, 5, 3, 1, 0)),
        (ElanForm.every_second(8), (9, 7, 5, 3, 1, 0)),
    ],
)
def test_forms_take_the_latest_first(form: ElanForm, taken: tuple[int, ...]) -> None:
    assert form.taken == taken
    assert form.concat_width(8, 8) == 8 * len(taken)
    assert Elan(16, 8, 24, form=form, style=Style()).transition.conv.in_channels == 8 * len(taken)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("form", [ElanForm.every_second(4), ElanForm.every(2)])
def test_extended_elan_is_the_papers_grouped_form(form: ElanForm, groups: int) -> None:
    torch.manual_seed(0)
    extended = ExtendedElan(groups, 12, 8, 16, form=form, style=Style(), chain_width=4)
    with_random_statistics(extended)  # type: ignore[arg-type]
    grouped = GroupedElan(extended)
    assert [conv.conv.groups for conv in grouped.chain] == [groups] * form.depth
    assert sum(p.numel() for p in grouped.parameters()) == sum(p.numel() for p in extended.parameters())
    x = torch.randn(2, 12, 6, 5)
    for training in (True, False):
        with torch.no_grad():
            torch.testing.assert_close(grouped.train(training)(x), extended.train(training)(x), rtol=1e-5, atol=1e-5)


def test_partial_auxiliary_map_is_the_last_branch() -> None:
    extended = ExtendedElan(2, 6, 4, 8, form=ElanForm.every(2), style=Style()).eval()
    x = torch.randn(1, 6, 4, 4)
    merged, last = extended(x, with_last=True)
    torch.testing.assert_close(last, extended.branches[1](x))
    torch.testing.assert_close(merged, extended.branches[1](x) + extended.branches[0](x))


def test_compound_scaling_makes_x_from_yolov7() -> None:
    """Depth x 1.5 alone gives X; its neck takes another form of ELAN and its head plain convolutions besides."""
    scaled, published = compound_scale(BASE, depth=1.5, name="yolov7x"), MODELS["yolov7x"].spec
    assert scaled.backbone == published.backbone
    assert isinstance(scaled.backbone, ElanSpec) and isinstance(scaled.neck, ElanPanSpec)
    assert (scaled.backbone.depth, scaled.backbone.channels) == (6, (320, 640, 1280, 1280))
    assert (scaled.backbone.stem_channels, scaled.backbone.hidden) == ((40, 80, 80, 160), (64, 128, 256, 256))
    assert replace(scaled.neck, chain=1.0, taken="every-second") == published.neck


@pytest.mark.parametrize(("name", "depth", "ratio"), [("yolov7-e6", 1.5, 1.25), ("yolov7-d6", 2.0, 1.5)])
def test_compound_scaling_of_w6(name: str, depth: float, ratio: float) -> None:
    scaled = compound_scale(W6, depth=depth)
    assert isinstance(scaled.backbone, ElanSpec) and isinstance(scaled.neck, ElanPanSpec)
    assert transition_ratio(scaled.backbone, 1.0) == 1.0
    assert transition_ratio(W6.backbone, depth) == transition_ratio(W6.neck, depth) == ratio  # type: ignore[arg-type]
    published = MODELS[name].spec
    assert isinstance(published.backbone, ElanSpec) and isinstance(published.neck, ElanPanSpec)
    assert (scaled.backbone.channels, scaled.neck.channels) == (published.backbone.channels, published.neck.channels)
    assert scaled.name == "yolov7-w6"


def test_compound_scaling_by_width_and_its_refusals() -> None:
    half = compound_scale(BASE, width=0.5)
    assert isinstance(half.backbone, ElanSpec) and half.backbone.hidden == (32, 64, 128, 128)
    assert half.backbone.depth == 4 and half.backbone.channels == (128, 256, 512, 512)
    with pytest.raises(ConfigError, match="yolov7-tiny cannot be scaled"):
        compound_scale(MODELS["yolov7-tiny"].spec, depth=1.5)
    with pytest.raises(ConfigError, match="factors are positive"):
        compound_scale(BASE, depth=0)


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        ("backbone", {"stem_channels": (32, 64)}, "stem 'conv'"),
        ("backbone", {"hidden": (64, 128)}, "one width per stage"),
        ("neck", {"channels": (64, 128)}, "neck.channels has 2 widths"),
        ("neck", {"hidden": (64,)}, "neck.hidden has 1 widths"),
    ],
)
def test_widths_that_do_not_fit_are_refused(part: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("yolov7", **{part: options})
