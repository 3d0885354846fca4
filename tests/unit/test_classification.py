"""Classifiers: metrics by hand, the loss, published schedules, and what comes out of the predictor and the judge."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.loss import SoftTargetCrossEntropy

from class_folders import COLOURS, write_class_folders
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.evaluation.classification import ClassEvaluator
from cloverleaf.losses.classify import ClassifyCriterion
from cloverleaf.losses.config import LossConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.predict.evaluate import evaluate
from cloverleaf.predict.predictor import Predictor
from cloverleaf.recipes.catalog import choose_recipe, get_recipe
from cloverleaf.structures import ClassifyOutput, Targets
from cloverleaf.training.schedule import Schedule
from cloverleaf.weights.format import WeightsMetadata

NARROW = {"channels": (4, 8, 8, 12), "columns": 1, "layers": (1, 1, 1, 1)}


def tiny(names: tuple[str, ...] = tuple(COLOURS), size: int = 32) -> Detector:
    torch.manual_seed(0)
    model = create_model("revcol-pico", num_classes=len(names), backbone=NARROW)
    model.metadata = WeightsMetadata(class_names=names, image_size=size, task="classify")
    return model


def targets_of(labels: list[int], class_probs: torch.Tensor | None = None) -> Targets:
    count = len(labels)
    return Targets(torch.zeros(count, 4), torch.tensor(labels), torch.arange(count), count, class_probs=class_probs)


def test_metrics_by_hand() -> None:
    judge = ClassEvaluator(("a", "b", "c", "d", "e"), ("a", "b", "c", "d", "e", "other"))
    probabilities = np.array([
        [0.5, 0.1, 0.1, 0.1, 0.1, 0.1],  # a, right
        [0.3, 0.4, 0.1, 0.1, 0.05, 0.05],  # a, called b
        [0.01, 0.2, 0.19, 0.2, 0.1, 0.3],  # b, called what the dataset does not have
        [0.3, 0.2, 0.2, 0.2, 0.08, 0.02],  # e, fifth
        [0.3, 0.2, 0.2, 0.18, 0.02, 0.1],  # e, not among five
    ])  # fmt: skip
    judge.update(probabilities[:2], np.array([0, 0]), ["1", "2"])
    judge.update(probabilities[2:], np.array([1, 4, 4]), ["3", "4", "5"])
    found = judge.compute()
    assert found["top1"] == pytest.approx(1 / 5) and found["top5"] == pytest.approx(4 / 5)
    assert found["mean_accuracy"] == pytest.approx((0.5 + 0 + 0) / 3)  # c and d have no images
    assert np.isnan(found.accuracy[2]) and found.precision[0] == pytest.approx(1 / 3)
    assert found.counts[1, 5] == 1 and found.counts.sum() == 5
    assert found["loss"] == pytest.approx(-np.log([0.5, 0.3, 0.2, 0.08, 0.02]).mean())
    row = found.rows()[2]
    assert row["class"] == "b" and not row["right"] and row["called"][0] == {"name": "other", "score": 0.3}
    assert found.fitness == found["top1"] and found.to_json()["classes"][2]["accuracy"] is None


def test_of_five_classes_there_is_no_top5_and_nothing_is_undefined_but_means_nothing() -> None:
    judge = ClassEvaluator(("a", "b"))
    empty = judge.compute()
    assert math.isnan(empty["top1"]) and empty.to_dict()["loss"] is None and empty.fitness == 0
    judge.update(np.array([[1.0, 0.0]]), np.array([1]), ["1"])
    found = judge.compute()
    assert math.isnan(found["top5"]) and math.isfinite(found["loss"])


def test_the_criterion_is_the_mean_soft_cross_entropy() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    soft = torch.rand(3, 4).softmax(1)
    found = ClassifyCriterion()(ClassifyOutput(logits), targets_of([0, 1, 2], soft), (32, 32))
    torch.testing.assert_close(found.total, SoftTargetCrossEntropy()(logits, soft))
    hard = ClassifyCriterion()(ClassifyOutput(logits), targets_of([0, 1, 2]), (32, 32))
    torch.testing.assert_close(hard.items["cls"], torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])))
    # of two processes with 3 and 1 images: the shares add up to the mean over all four
    halves = ClassifyCriterion(reduce=lambda shares: shares + torch.tensor([8.0, 1.0]))
    share = halves(ClassifyOutput(logits), targets_of([0, 1, 2]), (32, 32))
    torch.testing.assert_close(share.total, hard.total * 3 / 4)
    torch.testing.assert_close(share.items["cls"], (hard.total.detach() * 3 + 8) / 4)


def test_options_of_other_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.box = 0\.1 has no effect"):
        build_criterion(tiny(), LossConfig(box=0.1), image_size=32)


@pytest.mark.parametrize("name", ["imagenet", "revcol-tiny", "revcol-small", "revcol-base"])
def test_published_schedule(name: str) -> None:
    """t < W: warm + (base - warm) t / W; then min + (base - min) (1 + cos(pi (t - W) / (E - W))) / 2; all rates are for
    1024 images."""
    config = get_recipe(name)
    epochs, warmup, peak, low = 300, 20, 1e-3, 1e-8 if name == "revcol-base" else 1e-6
    steps, batch = 7, 256
    schedule = Schedule(config.schedule, config.optimizer, config.epochs, steps, batch)
    for iteration in (0, 1, 70, steps * warmup, steps * warmup + 1, 1500, steps * epochs - 1):
        t = iteration / steps
        if t < warmup:
            rate = 1e-5 + (peak - 1e-5) * t / warmup
        else:
            rate = low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (epochs - warmup)))
        plan = schedule.at(iteration)
        assert plan.lr == pytest.approx((rate * batch / 1024,) * 3, rel=1e-9)
        assert plan.momentum == 0.9 and plan.step and plan.accumulate == 1
    assert config.model.supervision == ({} if name == "imagenet" else {"type": "columns"})
    assert schedule.weight_decay == 0.05 and config.optimizer.clip_norm == (5 if name == "revcol-base" else 0)


def test_the_recipe_follows_from_model_and_size() -> None:
    assert choose_recipe("timm/resnet18+none+classify", 500)[0] == "classify"
    assert choose_recipe("revcol-base", 1_281_167)[0] == "revcol-base"
    assert choose_recipe("elan-tiny+none+classify", 1_281_167)[0] == "imagenet"


@pytest.mark.parametrize("backbone", ["elan-tiny", "timm/resnet10t", "csp-tiny"])
def test_any_backbone_classifies(backbone: str) -> None:
    model = create_model(f"{backbone}+none+classify", num_classes=3).train()
    assert model.task == "classify" and model(torch.rand(2, 3, 64, 64)).logits.shape == (2, 3)
    fused = model.eval().fused()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(fused(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)


def test_the_predictor_gives_probabilities(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "set", train=1, val=2)
    predictor = Predictor(tiny(), batch_size=2, device="cpu")
    paths = sorted((folder / "val").rglob("*.png"))
    found = predictor.classify(paths)
    assert [item.source for item in found] == list(map(str, paths)) and predictor.task == "classify"
    for item in found:
        assert item.probs.shape == (3,) and item.probs.sum() == pytest.approx(1, abs=1e-5)
        assert item.top()[0] == (item.name, item.score) and len(item.top(2)) == 2
    pixels = np.zeros((20, 50, 3), np.uint8)
    assert predictor.classify([pixels])[0].image_hw == (20, 50)
    with pytest.raises(ConfigError, match=r"Call classify\(images\)"):
        predictor(paths[0])
    with pytest.raises(ConfigError, match="Call classify"):
        predictor.segment([paths[0]])
    with pytest.raises(ConfigError, match="confidence cannot be set"):
        Predictor(tiny(), confidence=0.5)
    with pytest.raises(ConfigError, match="Call the predictor itself"):
        Predictor(create_model("csp-tiny+rep-pan+dense", num_classes=1, backbone={"width": 0.25})).classify([pixels])


def test_weights_may_know_more_classes_in_another_order(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "set", train=1, val=2)
    found = evaluate(tiny(("red", "pink", "blue", "green")), folder, workers=0, device="cpu")
    assert found.ignored_classes == ("pink",) and found.metrics.called_names == ("blue", "green", "red", "pink")
    assert found.metrics.counts.sum(1).tolist() == [2, 2, 2] and len(found.rows) == 6
    plain = Predictor(tiny(("red", "pink", "blue", "green")), device="cpu")
    for row in found.rows:
        assert plain.classify([folder / row["file_name"]])[0].name == row["called"][0]["name"]
    with pytest.raises(DataError, match="do not know every class"):
        evaluate(tiny(("red", "blue")), folder, workers=0)
