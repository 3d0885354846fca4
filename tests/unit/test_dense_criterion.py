"""The criterion of anchor-free heads: gradients without objects, invariances, extreme values, processes, options."""

import threading
from dataclasses import replace

import pytest
import torch

from anchor_cases import random_targets
from cloverleaf import create_model
from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from cloverleaf.errors import ConfigError
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.dense_config import DenseLossConfig, DistillationConfig
from cloverleaf.losses.distillation import Lesson
from cloverleaf.models.criterion import build_criterion, warmup_criterion
from cloverleaf.structures import AidedOutput, DenseOutput, Targets
from dense_cases import dense_predictions, repeated

SIZE, STRIDES, BINS = (96, 128), (8, 16, 32), 9


def raw_of(batch, classes=5, *, bins=BINS, full=True, seed=0, scale=1.0):
    """Random output; `full` with a direct and an anchor branch."""
    rng = torch.Generator().manual_seed(seed)
    logits, _, distances = dense_predictions(batch, SIZE, classes, seed=seed)
    positions = logits.shape[1]
    reg = torch.randn(batch, positions, 4 * bins, generator=rng) * scale if bins > 1 else distances * scale
    if not full:
        return DenseOutput(logits * scale, reg)
    aided = torch.randn(batch, 3 * positions, 4, generator=rng)
    aided = torch.cat((0.3 * aided[..., :2], (0.4 * aided[..., 2:] + 1).exp()), -1)
    aided_logits = torch.randn(batch, 3 * positions, classes, generator=rng) - 1
    return DenseOutput(logits * scale, reg, distances * scale, AidedOutput(aided_logits * scale, aided * scale))


def leaves_of(raw):
    """The same output as leaves, and these."""
    own = [None if v is None else v.detach().requires_grad_() for v in (raw.logits, raw.distances, raw.direct)]
    aided = raw.aided and AidedOutput(
        *(v.detach().requires_grad_() for v in (raw.aided.logits, raw.aided.boxes_cxcywh))
    )
    tensors = [v for v in own if v is not None] + ([aided.logits, aided.boxes_cxcywh] if aided else [])
    return DenseOutput(*own, aided), tensors


def part_of(raw, images):
    """Some images."""
    aided = raw.aided and AidedOutput(raw.aided.logits[images], raw.aided.boxes_cxcywh[images])
    direct = None if raw.direct is None else raw.direct[images]
    return DenseOutput(raw.logits[images], raw.distances[images], direct, aided)


def criterion_for(raw, reduce=None, distillation=None, **options):
    aided = TaskAlignedAssigner(26) if raw.aided is not None else None
    options = {"nominal_batch": 4.0, **options}
    assigner = AtssAssigner() if options.get("assigner") == "atss" else TaskAlignedAssigner()
    return DenseCriterion(
        DenseLossConfig(**options), strides=STRIDES, assigner=assigner, aided_assigner=aided, reduce=reduce,
        distillation=distillation,
    )  # fmt: skip


def run(raw, targets, lesson=None, **options):
    """Output and gradients."""
    raw, tensors = leaves_of(raw)
    output = criterion_for(raw, **options)(raw, targets, SIZE, lesson)
    output.total.backward()
    return output, [tensor.grad for tensor in tensors]


LESSONS = DistillationConfig(feature=10.0)


def lesson_of(batch, images=slice(None)):
    """A teacher's lesson, maps of student and teacher included."""
    raw = part_of(raw_of(batch, full=False, seed=9), images)
    rng = torch.Generator().manual_seed(4)
    maps = [[torch.randn(batch, 6, s, s, generator=rng)[images] for s in (8, 4)] for _ in range(2)]
    return Lesson(raw, 0.7, (maps[0], maps[1]))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("assigner", ["tal", "atss"])
def test_without_objects_only_scores_learn(full, classes, assigner):
    raw = raw_of(2, classes, full=full)
    targets = random_targets([0, 0], SIZE, classes)
    output, gradients = run(raw, targets, assigner=assigner)
    assert output.items["box"] == output.items["dfl"] == 0 < output.items["cls"]
    torch.testing.assert_close(output.total, output.items["cls"] * 2 / 4)
    for k, gradient in enumerate(gradients):
        scores = k in (0, 3)  # of the main and of the anchor branch
        assert (gradient > 0).all() if scores else not gradient.any()


def test_order_of_objects_does_not_matter():
    raw, targets = raw_of(3), random_targets([6, 0, 9], SIZE, 5)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    order = order[targets.image_index[order].argsort(stable=True)]
    (first, gradients), (second, others) = run(raw, targets), run(raw, repeated(targets, order))
    torch.testing.assert_close(first.total, second.total)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 50.0, 1e4])
@pytest.mark.parametrize("bins", [1, BINS])
@pytest.mark.parametrize("iou", ["iou", "giou", "diou", "ciou", "siou"])
def test_extreme_output_stays_finite(scale, bins, iou):
    raw = raw_of(3, bins=bins, scale=scale)
    lesson = replace(lesson_of(3), raw=raw_of(3, bins=bins, full=False, seed=9, scale=scale))
    output, gradients = run(raw, random_targets([4, 9, 0], SIZE, 5), lesson, iou=iou)
    assert output.total.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert ("dfl" in output.items) == (bins > 1)


def test_half_precision_is_computed_in_float32():
    targets, raw = random_targets([4, 9, 0], SIZE, 5), raw_of(3)
    half = DenseOutput(
        *(v.bfloat16() for v in (raw.logits, raw.distances, raw.direct)),
        AidedOutput(raw.aided.logits.bfloat16(), raw.aided.boxes_cxcywh.bfloat16()),
    )
    full = DenseOutput(
        *(v.float() for v in (half.logits, half.distances, half.direct)),
        AidedOutput(half.aided.logits.float(), half.aided.boxes_cxcywh.float()),
    )
    with torch.autocast("cpu", torch.bfloat16):
        low, gradients = run(half, targets, lesson_of(3), distillation=LESSONS)
    high, others = run(full, targets, lesson_of(3), distillation=LESSONS)
    assert low.total.dtype == torch.float32
    torch.testing.assert_close(low.total, high.total)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient.float(), other, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("counts", [[2, 11, 0, 4], [0, 0, 3, 1], [0, 0, 0, 0]])
def test_processes_add_up_to_one(counts):
    """Two processes with half of the images each have the gradients and the items of one with all of them."""
    targets, raw = random_targets(counts, SIZE, 5), raw_of(4)
    whole, whole_gradients = run(raw, targets, lesson_of(4), distillation=LESSONS)
    barrier, values, outputs = threading.Barrier(2, timeout=20), {}, {}

    def process(rank):
        def reduce(value):
            values[rank] = value.detach().clone()
            barrier.wait()
            total = values[0] + values[1]
            barrier.wait()
            return total

        images = slice(2 * rank, 2 * rank + 2)
        keep = targets.image_index // 2 == rank
        part = Targets(targets.boxes_xyxy[keep], targets.labels[keep], targets.image_index[keep] - 2 * rank, 2)
        lesson = lesson_of(4, images)
        outputs[rank] = run(part_of(raw, images), part, lesson, distillation=LESSONS, reduce=reduce)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(outputs[0][0].total + outputs[1][0].total, whole.total)
    for gradient, *shares in zip(whole_gradients, outputs[0][1], outputs[1][1], strict=True):
        torch.testing.assert_close(torch.cat(shares), gradient, rtol=1e-4, atol=1e-7)
    for rank in range(2):
        for name, value in whole.items.items():
            torch.testing.assert_close(outputs[rank][0].items[name], value, rtol=1e-4, atol=1e-6)


def test_twice_the_images_have_twice_the_gradient():
    """As published, where gradients add up over processes and class distillation over images."""
    targets, raw = random_targets([13, 15], SIZE, 5), raw_of(2)
    again = torch.cat((targets.image_index, targets.image_index + 2))
    both = Targets(targets.boxes_xyxy.repeat(2, 1), targets.labels.repeat(2), again, 4)
    images = torch.tensor([0, 1, 0, 1])
    once, gradients = run(raw, targets, lesson_of(2), distillation=LESSONS)
    twice, others = run(part_of(raw, images), both, lesson_of(2, images), distillation=LESSONS)
    torch.testing.assert_close(twice.total, 2 * once.total)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other[:2], gradient, rtol=1e-4, atol=1e-7)
    for name, value in once.items.items():
        torch.testing.assert_close(twice.items[name], value)


def test_a_teacher_that_says_the_same_teaches_nothing():
    raw, targets = raw_of(2, full=False), random_targets([3, 5], SIZE, 5)
    maps = [torch.randn(2, 4, 6, 6)]
    alone, _ = run(raw, targets)
    taught, _ = run(raw, targets, Lesson(raw, 1.0, (maps, maps)), distillation=LESSONS)
    distilled = {name: value for name, value in taught.items.items() if name.startswith("distill")}
    assert set(distilled) == {"distill_cls", "distill_dfl", "distill_feature"}
    torch.testing.assert_close(torch.stack(list(distilled.values())), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(taught.total, alone.total, rtol=0, atol=1e-3)


def test_the_class_term_does_not_hang_on_the_number_of_classes():
    """One class differs by little; the other classes say the same."""
    losses = {}
    for classes in (3, 80, 200):
        logits, taught = torch.full((2, 252, classes), -3.0), torch.full((2, 252, classes), -3.0)
        taught[..., 0] += 0.5
        raw, lesson = (DenseOutput(one, torch.zeros(2, 252, 4 * BINS)) for one in (logits, taught))
        targets = random_targets([0, 0], SIZE, classes)
        for scaled in (False, True):
            options = DistillationConfig(scale_classes=scaled)
            output, _ = run(raw, targets, Lesson(lesson, 1.0), distillation=options)
            losses[classes, scaled] = output.items["distill_cls"].item()
    assert losses[80, True] == pytest.approx(losses[80, False])
    assert losses[3, True] == pytest.approx(losses[80, True] * (1 - 1 / 3) / (1 - 1 / 80), rel=0.03)
    assert losses[200, True] == pytest.approx(losses[80, True], rel=0.03)
    assert losses[3, False] > 15 * losses[80, False]


def test_terms_of_distillation_can_be_switched_off():
    lesson = Lesson(raw_of(2, full=False, seed=9), 1.0)
    raw, targets = raw_of(2, full=False), random_targets([3, 5], SIZE, 5)
    output, _ = run(raw, targets, lesson, distillation=DistillationConfig(cls=0, dfl=0, feature=1.0))
    assert set(output.items) == {"box", "cls", "dfl"}


def test_learning_brings_the_loss_down():
    """Free outputs, moved by their gradients, come to predict the objects."""
    targets = random_targets([3, 2], SIZE, 5, seed=2)
    raw, tensors = leaves_of(raw_of(2))
    criterion, losses = criterion_for(raw), []
    optimizer = torch.optim.Adam(tensors, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(criterion(raw, targets, SIZE).total)
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.25 * losses[0]


def test_criterion_follows_the_head_and_its_options():
    head = {"aided": True}
    model = create_model("csp-tiny+elan-pan+dense", num_classes=3, head=head)
    criterion = build_criterion(model, LossConfig(dense=DenseLossConfig(topk=7, aided_topk=9)), image_size=64)
    assert (criterion.assigner.topk, criterion.aided_assigner.topk) == (7, 9)
    warm = warmup_criterion(criterion)
    assert isinstance(warm.assigner, AtssAssigner) and isinstance(criterion.assigner, TaskAlignedAssigner)
    images = torch.rand(2, 3, 64, 96)
    output = criterion(model(images), random_targets([2, 3], (64, 96), 3), (64, 96))
    output.total.backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(ConfigError, match="anchor branch"):
        criterion(model.deployed()(images), random_targets([2, 3], (64, 96), 3), (64, 96))


@pytest.mark.parametrize(
    ("model", "head", "options", "message"),
    [
        ("csp-tiny+elan-pan+dense", {}, {"box": 0.1}, "loss.box = 0.1 has no effect"),
        ("csp-tiny+elan-pan+dense", {}, {"assigner": "anchor_ratio"}, "loss.assigner"),
        ("csp-tiny+elan-pan+dense", {}, {"dense": {"aided_topk": 9}}, "no anchor branch"),
        ("csp-tiny+elan-pan+dense", {}, {"dense": {"assigner": "atss", "topk": 9}}, "loss.dense.topk = 9"),
        ("csp-tiny+elan-pan+dense", {"reg_max": 0}, {"dense": {"dfl": 1.0}}, "predicts no distributions"),
        ("csp-tiny+elan-pan+anchor", {}, {"dense": {"iou": "siou"}}, "loss.dense.iou = 'siou' has no effect"),
    ],
)
def test_options_without_effect_are_refused(model, head, options, message):
    options = {k: DenseLossConfig(**v) if k == "dense" else v for k, v in options.items()}
    with pytest.raises(ConfigError, match=message):
        build_criterion(create_model(model, num_classes=3, head=head), LossConfig(**options), image_size=64)


@pytest.mark.parametrize(
    ("name", "head", "published"),
    [("n", {"aided": True}, (133, 24, 0, 164, 172)), ("m", {"aided": True}, (206, 24, 24, 219, 245)),
     ("l", {}, (141, 30, 45, 212, 279))],
)  # fmt: skip
def test_parameter_groups(name, head, published):
    """As published, but for the norms of the neck and the scale of bottlenecks; one published weight is a constant."""
    from cloverleaf.training.optim import parameter_groups

    norms, synchronised, scales, weights, biases = published
    groups = [len(group) for group in parameter_groups(create_model(f"gold-yolo-{name}", head=head))]
    assert groups == [norms + synchronised + scales, weights - synchronised - 1, biases]
