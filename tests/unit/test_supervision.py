"""Supervision beside the head: which columns, what it costs, what it leaves alone, how it is chosen and refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cloverleaf.backbones.revcol.inversion import invert_column
from cloverleaf.data.loader import build_train_loader
from cloverleaf.data.source import open_index
from cloverleaf.errors import ConfigError
from cloverleaf.heads.reconstruction import FullDecoder, SimpleDecoder
from cloverleaf.heads.supervision import ColumnSupervisionSpec, supervised_columns
from cloverleaf.losses.classify import ClassifyCriterion
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.dense_config import DistillationConfig
from cloverleaf.losses.distillation import Lesson
from cloverleaf.losses.supervision import SourceWeights, SupervisedCriterion, compound_weights, reconstruction_loss
from cloverleaf.models.catalog import create_model, find_spec
from cloverleaf.models.criterion import build_criterion, warmup_criterion
from cloverleaf.structures import AuxiliaryOutput, ByEpoch, ClassifyOutput, SupervisedOutput, Targets
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import from_dict, parse_assignments, read_config, update, write_config
from cloverleaf.training.starting_weights import model_options
from cloverleaf.training.task import DetectionTask
from cloverleaf.training.tasks import target_options
from cloverleaf.weights import WeightsMetadata, load, save
from tiny_datasets import write_coco
from toy_shapes import toy_shapes

REVCOL = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1), "columns": 3}
NARROW = {"width": 0.125}
MODELS = {
    "anchor": ("revcol+elan-pan+anchor", "columns", {"backbone": REVCOL, "neck": NARROW, "head": NARROW}),
    "dense": ("revcol+elan-pan+dense", "columns", {"backbone": REVCOL, "neck": NARROW}),
    "classify": ("revcol+none+classify", "columns", {"backbone": REVCOL}),
    "branch": ("elan-tiny+elan-pan+anchor", "reversible-branch", {"backbone": NARROW, "neck": NARROW, "head": NARROW}),
    "branch-dense": ("revcol+elan-pan+dense", "reversible-branch", {"backbone": REVCOL, "neck": NARROW}),
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", MODELS)
LOSSES = {"columns": {"aux", "rec"}, "reversible-branch": {"aux"}}


def model_of(kind: str, **options):
    torch.manual_seed(0)
    name, supervision, parts = MODELS[kind]
    return create_model(name, **{"num_classes": 2, "supervision": supervision, **parts, **options})


def batch_of(kind: str, images: int = 4):
    pictures, targets = toy_shapes(images, 64)
    if kind == "classify":  # the class of the first object of each
        return pictures, Targets(targets.boxes_xyxy[::2], torch.arange(images) % 2, torch.arange(images), images)
    return pictures, targets


@pytest.mark.parametrize(
    ("columns", "parts", "expected"),
    [
        (4, None, (0, 1, 2)), (8, None, (1, 3, 5)), (16, None, (3, 7, 11)),  # published
        (2, None, (0,)), (3, None, (0, 1)), (5, None, (0, 1, 2)), (7, None, (0, 2, 4)), (9, 2, (3,)), (4, 4, (0, 1, 2)),
    ],
)  # fmt: skip
def test_supervised_columns(columns, parts, expected) -> None:
    assert supervised_columns(columns, parts) == expected


def test_weights_fall_for_images_and_rise_for_heads() -> None:
    found = compound_weights(3, 3.0, 0.7)
    np.testing.assert_allclose([w.image for w in found], [3, 2, 1])
    np.testing.assert_allclose([w.raw for w in found], [0.175, 0.35, 0.525])
    assert compound_weights(1, 3.0, 0.7) == (SourceWeights(raw=0.35, image=3.0),)


def test_reconstruction_loss_clamps_and_leaves_padding_out() -> None:
    logits, images = torch.randn(2, 3, 4, 6), torch.rand(2, 3, 4, 6)
    images[0, :, 0], images[1, :, 1] = 0.0, 1.0
    target, p = images.clamp(0.01, 0.99), logits.sigmoid()
    each = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(reconstruction_loss(logits, images), each.sum())
    covered = torch.rand(2, 4, 6) > 0.5
    expected = each.permute(0, 2, 3, 1)[covered].sum()
    torch.testing.assert_close(reconstruction_loss(logits, images, covered), expected)


@pytest.mark.parametrize("size_hw", [(64, 96), (50, 70), (33, 32)])
@pytest.mark.parametrize("decoder", [FullDecoder((4, 6, 8, 10), 4), SimpleDecoder(10, 32)])
def test_decoders_fit_every_input(decoder: nn.Module, size_hw) -> None:
    assert decoder(torch.rand(1, 10, size_hw[0] // 32, size_hw[1] // 32), size_hw).shape == (1, 3, *size_hw)


@KINDS
def test_a_few_steps_train_every_part_and_evaluation_does_not_see_it(kind: str, tmp_path: Path) -> None:
    model, plain = model_of(kind), model_of(kind, supervision="none")
    images, targets = batch_of(kind)
    assert plain.supervision is None and model.spec.form == "training"
    assert all(map(torch.equal, _tensors(model.eval()(images)), _tensors(plain.eval()(images))))
    criterion = build_criterion(model, LossConfig(), image_size=64)
    optimizer = torch.optim.AdamW(model.train().parameters(), 2e-3)
    history = []
    for _ in range(8):
        loss = criterion(model(images), targets, (64, 64))
        torch.testing.assert_close(loss.total, torch.stack(list(loss.items.values())).sum() * loss.factor)
        history.append(loss.items)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert LOSSES[MODELS[kind][1]] <= history[0].keys()
    assert all(torch.isfinite(value) for value in history[-1].values())
    assert "rec" not in history[0] or history[-1]["rec"] < history[0]["rec"] - 0.03
    assert kind != "classify" or history[-1]["aux"] < history[0]["aux"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    alone = criterion(model(images), targets, (64, 64))
    assert not LOSSES[MODELS[kind][1]] & alone.items.keys()  # plain output passes through
    for form in (model, model.deployed()):
        save(form, tmp_path / "m.safetensors", metadata=WeightsMetadata(class_names=("a", "b")))
        again = load(tmp_path / "m.safetensors")
        assert (again.supervision is None) == (form is not model)
        for own, other in zip(_tensors(model(images)), _tensors(again(images)), strict=True):
            torch.testing.assert_close(own, other)


def _tensors(raw):
    if isinstance(raw, ClassifyOutput):
        return [raw.logits]
    return list(raw.levels) if hasattr(raw, "levels") else [raw.logits, raw.distances]


def test_the_branch_is_reversible() -> None:
    """From the image and the branch's maps come the backbone's, of any backbone."""
    branch = model_of("branch").double()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    maps = branch.backbone(images)[branch.supervision.skipped :]
    stem = branch.supervision.stem(images)
    column = branch.supervision.column
    torch.testing.assert_close(invert_column(column, stem, column(stem, maps)), tuple(maps))


def test_light_heads_leave_the_state_of_the_criterion_alone() -> None:
    """The weights of the levels adapt to the model's own head, in training, and go into checkpoints."""
    model, (images, targets) = model_of("anchor").train(), batch_of("anchor")
    config = LossConfig(autobalance=True)
    criterion = build_criterion(model, config, image_size=64)
    raw = model(images)
    main = build_criterion(model_of("anchor", supervision="none"), config, image_size=64)
    for _ in range(3):
        criterion(raw, targets, (64, 64)), main(raw.final, targets, (64, 64))
    assert not torch.equal(main.balance, torch.tensor([4.0, 1.0, 0.4]))
    torch.testing.assert_close(criterion.main.balance, main.balance)
    fresh = build_criterion(model, config, image_size=64)
    fresh.load_state_dict(criterion.state_dict())
    torch.testing.assert_close(fresh.light.balance, main.balance)
    warm = warmup_criterion(criterion)
    assert type(warm.light.assigner) is type(warm.main.assigner) is not type(criterion.main.assigner)
    assert torch.isfinite(warm(raw, targets, (64, 64)).total)
    assert criterion.main.assigner is criterion.light.assigner, "the warm-up changed what it was made of"


def test_branches_of_the_head_and_lessons_of_a_teacher_concern_the_head_alone() -> None:
    model, (images, targets) = model_of("dense", head={"aided": True}).train(), batch_of("dense")
    criterion = build_criterion(model, LossConfig(), image_size=64, distillation=DistillationConfig())
    raw, maps = model.forward_with_maps(images)
    assert raw.final.aided is not None and all(source.raw.aided is None for source in raw.auxiliary)
    lesson = Lesson(model_of("dense").eval()(images), 0.5)
    taught, alone = (criterion(raw, targets, (64, 64), *further) for further in ((lesson,), ()))
    assert taught.items.keys() - alone.items.keys() == {"distill_cls", "distill_dfl"}
    assert taught.items["aux"] == alone.items["aux"]
    assert torch.equal(model.head(maps).logits, raw.final.logits)


def test_processes_share_the_mean_of_reconstructions() -> None:
    """Two processes with unequal padding and images have the loss of one with all of it."""
    images, logits = torch.rand(3, 3, 8, 8), torch.randn(2, 3, 3, 8, 8)
    covered, soft = torch.rand(3, 8, 8) > 0.3, torch.randn(3, 5)
    weights = compound_weights(2, 3.0, 0.7)

    def loss_of(part, reduce=None):
        rows = torch.arange(len(images[part]))
        targets = Targets(torch.zeros(len(rows), 4), rows, rows, len(rows), covered=covered[part])
        sources = tuple(AuxiliaryOutput(image=of_source[part]) for of_source in logits)
        criterion = ClassifyCriterion(reduce=reduce)
        raw = SupervisedOutput(ClassifyOutput(soft[part]), sources, images[part])
        return SupervisedCriterion(criterion, criterion, weights, reduce)(raw, targets, (8, 8))

    whole = loss_of(slice(0, 3))  # the labels of a process count from 0, so only reconstructions are compared
    barrier, values, found = threading.Barrier(2), {}, {}

    def process(rank: int, part: slice) -> None:
        def reduce(value):
            values[rank] = value
            barrier.wait()
            total = values[0] + values[1]
            barrier.wait()
            return total

        found[rank] = loss_of(part, reduce)

    other = threading.Thread(target=process, args=(1, slice(1, 3)))
    other.start()
    process(0, slice(0, 1))
    other.join()
    for rank in (0, 1):
        torch.testing.assert_close(found[rank].items["rec"], whole.items["rec"])
    shares = sum(found[rank].total for rank in (0, 1)) - found[0].items["cls"]
    torch.testing.assert_close(shares, whole.items["rec"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("elan-tiny+elan-pan+anchor", {"supervision": "columns"}, "backbone has no columns"),
        ("revcol+none+classify", {"supervision": "columns", "backbone": {"columns": 1}}, "no column to supervise"),
        ("revcol+none+classify", {"supervision": {"type": "columns", "parts": 5}}, "parts = 5 is not possible"),
        ("revcol+none+classify", {"supervision": {"type": "columns", "parts": 1}}, "supervision.parts = 1"),
        ("revcol+none+classify", {"supervision": {"parts": 2}}, "supervision.type is missing"),
        ("revcol+none+classify", {"supervision": "colums"}, "Did you mean 'columns'"),
        ("revcol+none+classify", {"supervision": {"type": "none", "parts": 2}}, "no option 'parts'"),
        ("revcol+none+classify", {"supervision": {"type": "columns", "heads": False, "decoder": "none"}}, "neither"),
        ("revcol+fpn+mask-rcnn", {"supervision": {"type": "columns", "heads": True}}, "no further heads"),
        ("revcol+fpn+mask-rcnn", {"supervision": "reversible-branch"}, "no further heads for --task instance"),
        ("revcol+none+classify", {"supervision": 3}, "given by its name"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name: str, options: dict, message: str) -> None:
    given = {**options, "backbone": {**REVCOL, **options.get("backbone", {})}} if name.startswith("revcol") else options
    with pytest.raises(ConfigError, match=message) as error:
        create_model(name, **given)
    assert error.value.fix


def test_segmentation_may_reconstruct_and_many_classes_have_the_simple_decoder() -> None:
    pixels = create_model("revcol+fpn+point-rend", supervision="columns", backbone=REVCOL)
    assert len(pixels.supervision.heads) == 0 and len(pixels.supervision.decoders) == 2
    many = create_model("revcol+none+classify", num_classes=1001, supervision="columns", backbone=REVCOL)
    assert all(isinstance(decoder, SimpleDecoder) for decoder in many.supervision.decoders)


@pytest.mark.parametrize(
    ("kind", "options", "loss"),
    [
        ("anchor", {"supervision": "none"}, {"falling": 1.0}),
        ("anchor", {"supervision": {"type": "columns", "decoder": "none"}}, {"falling": 1.0}),
        ("classify", {"supervision": {"type": "columns", "heads": False}}, {"rising": 1.0}),
        ("dense", {}, {"branch": 1.0}),
        ("branch", {}, {"rising": 1.0}),
    ],
)
def test_weights_without_effect_are_refused(kind: str, options: dict, loss: dict) -> None:
    config = LossConfig(supervision=loss)
    with pytest.raises(ConfigError, match=rf"loss.supervision.{next(iter(loss))} = 1.0 has no effect") as error:
        build_criterion(model_of(kind, **options), config, image_size=64)
    assert not error.value.fix.startswith("set model.supervision=columns, ")  # which may be what is set


def test_configuration_names_it_and_weights_bring_it_along(tmp_path: Path) -> None:
    config = update(TrainConfig(), parse_assignments(["model.supervision=columns", "model.name=revcol+none+classify"]))
    assert config.model.supervision == {"type": "columns"} and target_options(replace(config, task="semantic")).covered
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    more = update(config, parse_assignments(["model.supervision.parts=2", "model.supervision.decoder=none"]))
    assert more.model.supervision == {"type": "columns", "parts": 2, "decoder": "none"}
    assert not target_options(replace(more, task="detect")).covered
    assert from_dict({"model": {"supervision": None}}).model.supervision == {"type": "none"}
    spec = find_spec("revcol-nano+elan-pan+anchor").with_overrides({"supervision": more.model.supervision})
    assert spec.supervision == ColumnSupervisionSpec(parts=2, decoder="none")
    assert spec.with_overrides({"supervision": {"parts": 3}}).supervision.parts == 3
    assert spec.with_overrides({"supervision": {}}) == spec and spec.as_deployed().supervision is None
    assert spec.with_overrides({"supervision": "reversible-branch"}).supervision.type == "reversible-branch"
    save(model_of("branch"), tmp_path / "m.safetensors", metadata=WeightsMetadata(class_names=("a", "b")))
    assert model_options(str(tmp_path / "m.safetensors"))["supervision"] == {"type": "reversible-branch"}


@pytest.mark.parametrize("multi_scale", [False, True])
def test_a_run_leaves_padding_out(tmp_path: Path, multi_scale: bool) -> None:
    """From the files of a dataset to the loss: the grey of letterboxes is not reconstructed."""
    index = open_index(write_coco(tmp_path), "train")
    config = from_dict({
        "model": {"name": MODELS["dense"][0], "supervision": "columns"}, "multi_scale": multi_scale, "seed": 1,
        "data": {"image_size": 64, "batch_size": 2, "workers": 0},
        "augment": {"mosaic": 0, "scale": 0, "translate": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0},
    })  # fmt: skip
    loader = build_train_loader(index, config.data, config.augment, epochs=1, seed=0, targets=target_options(config))
    model = model_of("dense", num_classes=len(index.names)).train()
    criterion = build_criterion(model, config.loss, image_size=64)
    task = DetectionTask(model, ByEpoch.always(criterion), None, config)
    images, targets = task.prepare(next(iter(loader)), 0)
    assert (images.shape[2:] != (64, 64)) == multi_scale and targets.covered.shape == (2, *images.shape[2:])
    grey = (images - 114 / 255).abs().amax(1) < 1e-3
    assert 0.05 < (~targets.covered).float().mean() < 0.9
    assert (grey != targets.covered).float().mean() > (0.9 if multi_scale else 0.999)  # edges are blurred
    output = criterion(model(images), targets, images.shape[2:])
    everything = criterion(model(images), replace(targets, covered=None), images.shape[2:])
    assert torch.isfinite(output.total) and output.items["rec"] != everything.items["rec"]
