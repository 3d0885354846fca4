"""Gold-YOLO's published state dicts: names, order, shapes and types, both ways, in every form of the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cloverleaf
import official_files as official
from cloverleaf.errors import CheckpointError
from cloverleaf.weights import export_state_dict, import_state_dict
from cloverleaf.weights.recognise import recognise

KEYS = Path(__file__).parent / "gold_yolo" / "keys"
FILES = sorted(path.stem for path in KEYS.glob("gold_yolo-*.txt"))
LARGE = ("gold_yolo-m_fuse_ab", "gold_yolo-l_fuse_ab", *(f"gold_yolo-{size}_base_deploy" for size in "sml"))
CASES = [pytest.param(stem, marks=pytest.mark.slow) if stem in LARGE else stem for stem in FILES]
FORMS = {"base": "deploy", "base_nodfl": "deploy", "base_deploy": "fused"}  # every other one is a training form
N = "gold-yolo-n"


def published(stem: str) -> tuple[str, str, dict[str, Tensor]]:
    """Catalog name, form of the head and a state dict of random values."""
    variant, _, form = stem.removeprefix("gold_yolo-").partition("_")
    return f"gold-yolo-{variant}", form, official.random_state((KEYS / f"{stem}.txt").read_text())


def described(state: dict[str, Tensor]) -> list[str]:
    return [f"{k}\t{tuple(v.shape)}\t{str(v.dtype).removeprefix('torch.')}" for k, v in state.items()]


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return published("gold_yolo-n_base")[2]


@pytest.mark.parametrize("stem", CASES)
def test_names_are_the_published_ones_in_their_order_and_come_back(stem: str) -> None:
    name, form, state = published(stem)
    model = import_state_dict(name, state)
    assert model.spec.form == FORMS.get(form, "training")
    again = export_state_dict(model)
    assert described(again) == (KEYS / f"{stem}.txt").read_text().splitlines()
    if form == "base_deploy":  # its remaining norms were folded: the tensors differ, the model is the same
        ours = import_state_dict(name, again).state_dict()
        assert all(torch.equal(value, ours[key]) for key, value in model.state_dict().items())
    else:
        assert all(torch.equal(value, again[key]) for key, value in state.items())
    likeness = recognise(state)
    assert (likeness.name, likeness.form, likeness.share, likeness.also) == (name, model.spec.form, 1.0, ())


@pytest.mark.parametrize(
    ("stem", "options"),
    [
        ("gold_yolo-n_base", {}),
        ("gold_yolo-n_base_nodfl", {"reg_max": 0}),
        ("gold_yolo-n_fuse_ab", {"aided": True}),
        ("gold_yolo-n_fuse_ab_nodfl", {"aided": True, "reg_max": 0}),
        ("gold_yolo-n_distill_ns", {"direct": True}),
    ],
)
def test_form_of_the_head_is_read_from_names_and_widths(stem: str, options: dict[str, Any]) -> None:
    fresh = cloverleaf.create_model(N, head=options)
    model = import_state_dict(N, published(stem)[2])
    assert model.spec == fresh.spec
    if model.head.anchors_px is not None:  # published in a configuration, not in the state dict
        assert torch.equal(model.head.anchors_px, fresh.head.anchors_px)
    assert model.deployed().head.reg_max == (0 if options.get("direct") else options.get("reg_max", 16))


def test_norms_that_the_published_deploy_form_keeps_are_folded_with_their_own_epsilons(base: dict[str, Tensor]) -> None:
    small = {k: v / 1000 if k.endswith("running_var") else v for k, v in base.items()}  # so that the epsilons count
    fused = import_state_dict(N, small).fused()
    folded = export_state_dict(fused)
    kept = tuple(key.removesuffix("bn.weight") for key in folded if key.endswith("bn.weight"))
    assert len(kept) == 2 + 4 * 3 + 2 * 6  # Low-IFM, Inject, transformer
    again = import_state_dict(N, {k: small[k] if k.startswith(kept) else v for k, v in folded.items()})
    assert again.spec == fused.spec
    for key, value in fused.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("stem", ["gold_yolo-n_fuse_ab", "gold_yolo-n_distill_ns"])
def test_branches_that_are_not_in_force_in_a_published_deploy_form_are_left_out(stem: str) -> None:
    _, _, state = published(stem)
    fused = import_state_dict(N, state).fused()
    folded = export_state_dict(fused)
    heads = {k: v for k, v in state.items() if "_preds" in k}
    again = import_state_dict(N, {k: v for k, v in folded.items() if "_preds" not in k} | heads)
    assert again.spec == fused.spec
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in fused.state_dict().items())


def test_what_does_not_fit_is_listed(base: dict[str, Tensor]) -> None:
    for key, shape in (("detect.proj", (17,)), ("detect.proj_conv.weight", (1, 17, 1, 1))):
        with pytest.raises(CheckpointError, match=rf"{key} is not 0, 1 \.\.\. 16"):
            import_state_dict(N, {**base, key: torch.ones(shape)})
    broken = {**base, "neck.extra": torch.zeros(1), "neck.conv_1x1_n.bias": torch.zeros(7)}
    del broken["backbone.ERBlock_2.1.block.0.rbr_1x1.bn.bias"], broken["detect.proj"]
    with pytest.raises(CheckpointError) as caught:
        import_state_dict(N, broken)
    text = str(caught.value)
    assert "2 missing: backbone.ERBlock_2.1.block.0.rbr_1x1.bn.bias, detect.proj" in text
    assert "1 left over: neck.extra" in text and "1 mis-shaped: neck.conv_1x1_n.bias (7,) instead of (192,)" in text
    with pytest.raises(CheckpointError, match="its head has 80 classes, not 3"):
        import_state_dict(N, base, num_classes=3)
    with pytest.raises(CheckpointError, match="mis-shaped"):
        import_state_dict("gold-yolo-s", base)
    with pytest.raises(CheckpointError, match="missing"):
        import_state_dict("yolov7-tiny", base)
    assert import_state_dict(N, {k: v for k, v in base.items() if "num_batches" not in k}).spec.form == "deploy"
    halved = import_state_dict(N, {k: v.half() if v.is_floating_point() else v for k, v in base.items()})
    assert {p.dtype for p in halved.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"neck": {"laf": False}}, "backbone or neck has other options"),
        ({"neck": {"heads": 2, "key_dim": 16}}, "backbone or neck has other options"),
        ({"head": {"reg_max": 8}}, "reg_max 0 or 16"),
        ({"head": {"aided": True, "direct": True}}, "two training branches"),
        ({"head": {"aided": True, "anchors_px": [[[9, 9]]] * 3}}, "anchors of its own"),
    ],
)
def test_what_published_names_cannot_express_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be written with published names.*{why}"):
        export_state_dict(cloverleaf.create_model(N, **options))
    assert export_state_dict(cloverleaf.create_model(N, num_classes=2, neck={"drop_path": 0.0}))
