"""Planned re-parameterised convolution (arXiv 2207.02696, section 4.1)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cloverleaf.layers.csp import Bottleneck, CspBlock
from cloverleaf.layers.elan import Elan, ElanForm
from cloverleaf.layers.planned import find_places, identity_allowed, plan
from cloverleaf.layers.rep import reparameterize
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style
from cloverleaf.models.catalog import create_model
from contract.test_catalog import images, with_random_statistics

STYLE = Style()


class Dense(nn.Module):
    """Each convolution once in front of every kind of join."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.residual, self.dense, self.both, self.changed = (RepConv(4, 4, style=STYLE) for _ in range(5))
        self.activated = nn.Sequential(RepConv(4, 4, style=STYLE), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.plain(x)
        y = y + self.residual(y)
        y = torch.cat((y, self.dense(y)), 1)[:, :4]
        both = self.both(y)
        y = torch.cat((both, y + both), 1).chunk(2, 1)[1]
        return self.activated(y.add(self.changed(y)))


def test_places_are_seen_in_the_running_graph() -> None:
    places = find_places(Dense(), lambda model: model(torch.randn(1, 4, 6, 6)))
    assert places == {
        "plain": "plain", "residual": "residual", "dense": "concatenation", "both": "residual",
        "changed": "residual", "activated.0": "plain",
    }  # fmt: skip


def test_the_plan_drops_identities_and_leaves_the_model() -> None:
    model = Dense()
    planned = plan(model, lambda m: m(torch.randn(1, 4, 6, 6)))
    kept = {n for n, m in planned.named_modules() if isinstance(m, RepConv) and m.identity_norm is not None}
    assert kept == {"plain", "activated.0"}
    assert all(m.identity_norm is not None for m in model.modules() if isinstance(m, RepConv))
    again = find_places(planned, lambda m: m(torch.randn(1, 4, 6, 6)))
    assert all(identity_allowed(place) or name not in kept for name, place in again.items())


@pytest.mark.parametrize("kind", ["rep", "rep-planned"])
@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda kind: Elan(8, 8, 8, form=ElanForm.every(3, kind), style=STYLE), "concatenation"),
        (lambda kind: Elan(8, 8, 8, form=ElanForm.every_second(4, kind), style=STYLE), "concatenation"),
        (lambda kind: Bottleneck(8, expansion=1.0, conv=kind, style=STYLE), "residual"),
        (lambda kind: CspBlock(8, 16, 2, conv=kind, style=STYLE), "residual"),
    ],
)
def test_blocks_are_built_as_the_planner_would(make: object, place: str, kind: str) -> None:
    block = make(kind)  # type: ignore[operator]
    places = find_places(block, lambda m: m(torch.randn(2, 8, 6, 6)))
    assert place in places.values()
    for name, found in places.items():
        conv = block.get_submodule(name)
        assert (conv.identity_norm is not None) == (kind == "rep" or found == "plain"), (name, found)


@pytest.mark.parametrize("kind", ["rep", "rep-planned"])
@pytest.mark.parametrize("name", ["yolov7-tiny", "csp-tiny+elan-pan+anchor"])
def test_models_with_rep_chains_fold_equal(name: str, kind: str) -> None:
    torch.manual_seed(0)
    parts = {"backbone": {"width": 0.25, "conv": kind}, "neck": {"width": 0.25, "conv": kind}}
    model = with_random_statistics(create_model(name, num_classes=2, **parts)).eval()  # type: ignore[arg-type]
    x = images(model)
    places = find_places(model, lambda m: m(x))
    assert {"concatenation"} <= set(places.values()) and len(places) >= 12
    if kind == "rep-planned":
        for path, place in places.items():
            conv = model.get_submodule(path)
            assert isinstance(conv, RepConv) and not (conv.identity_norm is not None and place != "plain"), path
    fused = model.fused()
    assert not any(isinstance(module, RepConv) for module in fused.modules())
    with torch.no_grad():
        for ours, theirs in zip(model(x).levels, fused(x).levels, strict=True):
            assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_rep_conv_with_identity_folds_equal(groups: int) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(RepConv(8, 8, style=STYLE, groups=groups))
    with_random_statistics(block).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 8, 7, 5)
    with torch.no_grad():
        torch.testing.assert_close(reparameterize(block)(x), block(x), rtol=1e-5, atol=1e-5)
