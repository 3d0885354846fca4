"""Boxes, tags and embeddings from one network: what is learned, how tasks are weighed, what is left when deployed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from cloverleaf.data.source import open_index
from cloverleaf.errors import CloverleafError, ConfigError, DataError
from cloverleaf.heads.multi import MultiHeadSpec
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.multi_config import MultiLossConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.criterion import build_criterion, warmup_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.ops.embeddings import sample_embeddings
from cloverleaf.recipes.api import _with_model_of_weights
from cloverleaf.recipes.resolve import resolve
from cloverleaf.structures import Targets
from cloverleaf.training.config_io import nest
from cloverleaf.training.multi import check_phase, label_names, prepare
from cloverleaf.training.starting_weights import build_model
from cloverleaf.training.tasks import check_data, check_model, check_options
from cloverleaf.weights import load, save

SIZE = (128, 160)
IDS = (3, 5, 9, 11)
NARROW: dict[str, Any] = {"backbone": {"width": 0.125}, "neck": {"width": 0.125}}
BOXES: dict[str, dict[str, Any]] = {
    "anchor": {"type": "anchor", "width": 0.125, "implicit": {"refine": "multiply"}},
    "dense": {"type": "dense", "reg_max": 4},
}
RELEASED = {"type": "anchor", "width": 0.125}


def model_of(kind: str = "anchor", **head: Any) -> Detector:
    torch.manual_seed(0)
    options = {"boxes": BOXES[kind], "num_tags": 5, "num_identities": 4, "embedding_dim": 8, **head}
    model = create_model("elan-tiny+elan-pan+multi", num_classes=3, head=options, **NARROW).train()
    if model.head.identities is not None:
        model.head.identities.set_ids(IDS)
    for parameter in model.parameters():  # some layers start at zero, and hide those before them
        if parameter.ndim and not parameter.any():
            parameter.data.uniform_(-0.1, 0.1)
    return model


def targets_of(identities: tuple[int, ...] = (9, -1, 3, 7, 11)) -> Targets:
    """Three images, the second of them empty, with objects of every level; one tag is not known."""
    boxes = torch.tensor([[4.0, 4, 16, 16], [10, 20, 80, 60], [10, 10, 90, 100], [0, 0, 96, 64], [0, 0, 160, 128]])
    tags = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, float("nan")]])
    image, labels = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 2, 0, 1])
    return Targets(boxes, labels, image, 3, identities=torch.tensor(identities), tags=tags)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def criterion_of(model: Detector, reduce: Any = None, **options: Any) -> Any:
    config = LossConfig(assigner="anchor_ratio" if model.has_anchors else "simota", multi=MultiLossConfig(**options))
    return build_criterion(model, config, image_size=96, reduce=reduce)


@pytest.mark.parametrize("balance", ["fixed", "uncertainty"])
@pytest.mark.parametrize("boxes", ["anchor", "dense"])
def test_every_parameter_learns_by_the_stated_rule(boxes: str, balance: str) -> None:
    learned = balance == "uncertainty"
    model = model_of(boxes, log_variances=learned, identity_scale="learned")
    gains = {} if learned else {"boxes": 1.0, "tags": 0.5, "embeddings": 0.25}
    criterion, targets = criterion_of(model, balance=balance, **gains), targets_of()
    if learned:
        for task, value in zip(("boxes", "tags", "embeddings"), (-1.0, 0.5, 1.0), strict=True):
            model.head.log_variances[task].data.fill_(value)
    raw = model(images())
    loss = criterion(raw, targets, SIZE)
    loss.total.backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle, f"no gradient: {idle}"

    of_boxes = criterion.boxes(raw.boxes, targets, SIZE)
    known = ~targets.tags.isnan()
    tag = F.binary_cross_entropy_with_logits(raw.tags[known], targets.tags[known])
    seen = torch.tensor([0, 2, 4])  # 7 was not in the training data, -1 is no identity
    rows = sample_embeddings(raw.embeddings, model.strides, targets.boxes_xyxy[seen], targets.image_index[seen])
    identity = F.cross_entropy(model.head.identities(rows), torch.tensor([2, 0, 3]))
    parts = dict(zip(("boxes", "tags", "embeddings"), (sum(of_boxes.items.values()), tag, identity), strict=True))
    if learned:
        s = model.head.log_variances
        expected = sum((torch.exp(-s[task]) * part + s[task]) / 2 for task, part in parts.items())
    else:
        expected = sum(gains[task] * part for task, part in parts.items())
    torch.testing.assert_close(loss.total, expected * of_boxes.factor)
    assert set(loss.items) == {*of_boxes.items, "tag", "id"}
    torch.testing.assert_close(loss.items["id"], identity.detach() * (1 if learned else 0.25))
    warm = warmup_criterion(criterion)(model(images()), targets, SIZE)
    torch.testing.assert_close(warm.items["tag"], loss.items["tag"], rtol=0.2, atol=0)


@pytest.mark.parametrize("balance", ["fixed", "uncertainty"])
def test_nothing_to_learn_a_task_from_keeps_the_graph(balance: str) -> None:
    """Without a known individual or tag in the batch a task costs nothing, and its log-variance rests."""
    model = model_of(log_variances=balance == "uncertainty")
    targets = replace(targets_of((-1, 7, -1, -1, 8)), tags=torch.full((3, 5), float("nan")))
    loss = criterion_of(model, balance=balance)(model(images()), targets, SIZE)
    loss.total.backward()
    assert loss.items["id"] == loss.items["tag"] == 0 and torch.isfinite(loss.total)
    for branch in (model.head.tags, model.head.embeddings, model.head.identities):
        assert all(p.grad is not None and not p.grad.any() for p in branch.parameters())
    if model.head.log_variances is not None:
        assert [float(model.head.log_variances[task].grad) for task in ("tags", "embeddings")] == [0, 0]
    nobody = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long(), 3, tags=targets.tags)
    assert torch.isfinite(criterion_of(model, balance=balance)(model(images()), nobody, SIZE).total)


@pytest.mark.parametrize("balance", ["fixed", "uncertainty"])
def test_two_processes_learn_what_one_does(balance: str) -> None:
    model, targets = model_of(log_variances=balance == "uncertainty").eval(), targets_of()

    def gradient(loss: Any, raw: Any) -> list[Tensor]:
        maps = [*raw.boxes.levels, raw.tags, *raw.embeddings, *(raw.log_variances or {}).values()]
        return list(torch.autograd.grad(loss.total, maps))

    raw = model(images())
    whole = criterion_of(model, balance=balance)(raw, targets, SIZE)
    expected = gradient(whole, raw)
    barrier, values, found = threading.Barrier(2, timeout=20), {}, {}

    def process(rank: int) -> None:
        def reduce(value: Tensor) -> Tensor:
            values[rank] = value.detach().clone()
            barrier.wait()
            total = values[0] + values[1]
            barrier.wait()
            return total

        own, first = slice(0, 2) if rank == 0 else slice(2, 3), 2 * rank
        keep = (targets.image_index < 2) == (rank == 0)
        part = Targets(
            targets.boxes_xyxy[keep], targets.labels[keep], targets.image_index[keep] - first, 2 - rank,
            identities=targets.identities[keep], tags=targets.tags[own],
        )  # fmt: skip
        shared = model(images()[own])
        loss = criterion_of(model, reduce, balance=balance)(shared, part, SIZE)
        found[rank] = loss, gradient(loss, shared)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(found[0][0].total + found[1][0].total, whole.total)
    for first, second, one in zip(found[0][1], found[1][1], expected, strict=True):
        both = first + second if one.ndim == 0 else torch.cat((first, second))
        torch.testing.assert_close(both, one, rtol=1e-4, atol=1e-6)
    for rank in range(2):
        for name, value in whole.items.items():
            torch.testing.assert_close(found[rank][0].items[name], value)


@pytest.mark.parametrize(
    ("boxes", "implicit"),
    [
        ("anchor", True),
        ("dense", {"task": {"operator": "multiply", "modelling": "network"}}),
        ("anchor", {"task": "concatenate", "tags": {"operator": "add", "modelling": "factorisation"}, "boxes": "none"}),
        ("dense", {"task": "none", "embeddings": "inner"}),
    ],
)
def test_canonical_representations_fold_away(boxes: str, implicit: Any, tmp_path: Path) -> None:
    model = model_of(boxes, implicit=implicit, log_variances=True, identity_scale="learned").eval()
    plain = model_of(boxes, implicit=False, num_identities=0)
    of_task = [key for key in model.state_dict() if ".task." in key or ".align_" in key or ".add." in key]
    assert of_task and not any(".task." in key or ".align_" in key for key in plain.state_dict())
    with torch.no_grad():
        expected = model(images())
        for form in (model.deployed(), model.fused()):
            assert form.head.identities is None and form.head.log_variances is None
            save(form, tmp_path / "weights.safetensors")
            for same in (form, load(tmp_path / "weights.safetensors")):
                actual = same(images())
                pairs = zip((expected.tags, *expected.embeddings), (actual.tags, *actual.embeddings), strict=True)
                boxed = zip(model.decode(expected, SIZE), same.decode(actual, SIZE), strict=True)
                for one, other in [*pairs, *boxed]:
                    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert set(model.deployed().state_dict()) == set(plain.deployed().state_dict())
    save(model, tmp_path / "training.safetensors")
    again = load(tmp_path / "training.safetensors")
    assert again.spec == model.current_spec() and again.head.identities.ids.tolist() == list(IDS)


def test_a_head_that_aligns_by_itself_has_no_second_addend() -> None:
    def values(model: Detector) -> int:
        return sum(".add." in key for key in model.state_dict())

    released = create_model("elan-tiny+elan-pan+multi", head={"boxes": RELEASED}, **NARROW)
    assert values(released) == values(model_of("anchor")) == 3 and values(model_of("anchor", implicit=False)) == 0
    assert values(create_model("elan-tiny+elan-pan+multi", head={"boxes": RELEASED, "implicit": False}, **NARROW)) == 3


@pytest.mark.parametrize("task", ["boxes", "tags", "embeddings"])
def test_a_task_that_is_switched_off_does_not_change(task: str, shapes_json: Path) -> None:
    index = open_index(shapes_json, "train")
    config = MultiLossConfig(balance="uncertainty", **{task: 0.0})
    model = model_of(log_variances=True, num_identities=len(IDS))
    model.head.identities.set_ids = lambda ids: None  # those of the dataset are more
    prepare(model, config, index)
    criterion = build_criterion(model, LossConfig(multi=config), image_size=96)
    loss = criterion(model(images()), targets_of(), SIZE)
    loss.total.backward()
    off = [getattr(model.head, task), *([model.head.identities] if task == "embeddings" else [])]
    assert all(p.grad is None and not p.requires_grad for module in off for p in module.parameters())
    assert model.head.log_variances[task].grad is None
    missing = {"boxes": {"box", "obj", "cls"}, "tags": {"tag"}, "embeddings": {"id"}}[task]
    assert not missing & set(loss.items) and next(model.backbone.parameters()).grad is not None


@pytest.mark.parametrize(
    ("head", "options", "words"),
    [
        ({"tags": False, "num_tags": None}, {"tags": 2.0}, ["loss.multi.tags", "model.head.tags=true"]),
        ({"log_variances": True}, {"balance": "uncertainty", "tags": 2.0}, ["loss.multi.tags", "no effect"]),
        ({}, {"balance": "uncertainty"}, ["head.log_variances=true"]),
        ({"log_variances": True}, {}, ["log_variances", "no effect"]),
        ({"num_identities": 0}, {}, ["num_identities", "loss.multi.embeddings=0"]),
        ({}, {"boxes": 0.0, "tags": 0.0, "embeddings": 0.0}, ["nothing is learned"]),
        ({"tags": False}, {}, ["num_tags", "no effect"]),
        ({"tags": False, "num_tags": None, "implicit": {"tags": "add"}}, {}, ["implicit.tags = 'add'", "no effect"]),
        ({"embeddings": False, "num_identities": 0}, {}, ["embedding_dim = 8", "model.head.embeddings=true"]),
        ({"implicit": {"tag": "add"}}, {}, ["'tag'", "task, boxes, tags, embeddings"]),
        ({"implicit": {"tags": "plus"}}, {}, ["'plus'", "multiply"]),
        ({"implicit": "add"}, {}, ["model.head.implicit.task=add"]),
        (
            {"boxes": {"type": "anchor", "width": 0.125}, "implicit": {"boxes": "multiply"}},
            {},
            ["boxes.implicit.align"],
        ),
        ({"boxes": "classify"}, {}, ["'classify'", "anchor or dense"]),
    ],
)
def test_options_without_effect_are_refused(head: dict[str, Any], options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        criterion_of(model_of(**head), **options)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.fixture(scope="module")
def shapes_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cloverleaf.data.procedural import make_shapes

    folder = tmp_path_factory.mktemp("several") / "shapes"
    make_shapes(folder, seed=3, images=8, size=64, splits={"train": 6, "val": 2}, workers=1)
    return folder


def config_of(data: Path, **changes: Any) -> Any:
    given = {
        "task": "multi", "data.source": str(data), "model.backbone.width": 0.125, "model.neck.width": 0.125,
        "model.head.boxes.width": 0.125, **changes,
    }  # fmt: skip
    return resolve(nest(given))


@pytest.mark.parametrize("name", ["yolov7-tiny", "elan-tiny+elan-pan+multi", "yolov5n"])
def test_any_detector_takes_the_tasks_and_the_data_decide_how_many(name: str, shapes_json: Path) -> None:
    config, reason = config_of(shapes_json, **{"model.name": name, "loss.multi.balance": "uncertainty"})
    assert config.recipe == "multi" and "6 training images" in reason
    check_model(config)
    check_options(config)
    index = open_index(shapes_json, "train")
    check_data(config, index, open_index(shapes_json, "val"))
    model = build_model(config, index, Console(quiet=True))
    identities = sorted({i for row in range(len(index)) for i in index.objects(row).identities.tolist()})
    head = model.spec.head
    assert isinstance(head, MultiHeadSpec) and model.task == "multi" and head.log_variances
    assert head.num_tags == len(index.tag_names) and model.head.identities.ids.tolist() == identities
    model.box_head.set_anchors(model.anchors_px * 1.5)
    assert model.current_spec().head.boxes.anchors_px[0][0] == tuple(model.anchors_px[0, 0].tolist())


def test_weights_of_a_plain_detector_and_back(shapes_json: Path, tmp_path: Path) -> None:
    index, path = open_index(shapes_json, "train"), tmp_path / "some.safetensors"

    def start(**changes: Any) -> Detector:
        started = _with_model_of_weights(nest({"data.source": str(shapes_json), "model.weights": str(path), **changes}))
        return build_model(resolve(started)[0], index, Console(quiet=True))

    detector = create_model("yolov7-tiny", num_classes=16, **NARROW, head={"width": 0.125})
    detector.box_head.set_anchors(detector.anchors_px * 1.5)
    save(detector, path)
    model = start(task="multi", **{"model.head.embedding_dim": 16})
    assert model.spec.backbone == detector.spec.backbone and torch.equal(model.anchors_px, detector.anchors_px)
    for key, value in detector.box_head.state_dict().items():
        assert torch.equal(model.box_head.state_dict()[key], value), key

    model.head.identities.linear.weight.data.fill_(2.0)
    save(model, path)
    again = start()
    assert again.spec == model.spec and (again.head.identities.linear.weight == 2).all()
    model.head.identities.ids += 1
    save(model, path)  # of other individuals
    other = start()
    assert not (other.head.identities.linear.weight == 2).any()
    assert torch.equal(other.head.identities.ids + 1, model.head.identities.ids)
    save(model.deployed(), path)
    assert start().spec == again.spec

    bare = start(**{"model.head.tags": False, "model.head.embeddings": False})  # its options go with a branch
    assert bare.spec.head.tasks == ("boxes",)

    save(model, path)
    narrow = {"model.backbone.width": 0.125, "model.neck.width": 0.125, "model.head.width": 0.125}
    single = start(**{"model.name": "yolov7-tiny", **narrow})
    assert single.task == "detect"
    torch.testing.assert_close(single.head.levels[0].project.weight, model.box_head.levels[0].project.weight)


@pytest.mark.parametrize(
    ("drop", "changes", "words"),
    [
        ("tags", {}, ["no image tags", "model.head.tags=false"]),
        ("image tags", {}, ["no image of split 'train'", "COCO"]),
        ("identity", {}, ["no identities", '"identity"', "model.head.embeddings=false"]),
        ("other identities", {}, ["one individual only"]),
        ("", {"model.head.num_tags": 3}, ["num_tags = 3", "27"]),
        ("", {"loss.multi.tags": 0.0}, ["loss.multi.tags = 0", "untrained", "model.head.tags=false"]),
        ("", {"loss.multi.embeddings": 0.0}, ["loss.multi.embeddings = 0", "untrained"]),
        ("val tags", {"loss.multi.boxes": 0, "model.head.embeddings": False}, ["split 'val'", "no labels for tags"]),
        ("val sights", {"loss.multi.boxes": 0, "model.head.tags": False}, ["split 'val'", "no labels for embeddings"]),
        ("order", {}, ["split 'val'", "other tags", "in the same order"]),
    ],
)
def test_unfit_data_and_options_are_refused_before_training(
    shapes_json: Path, tmp_path: Path, drop: str, changes: dict[str, Any], words: list[str]
) -> None:
    for split in ("train", "val"):
        content = json.loads((shapes_json / "annotations" / f"{split}.json").read_text())
        if drop == "tags":
            del content["tags"]
        for image in content["images"]:
            image["file_name"] = str(shapes_json / "images" / image["file_name"])
            if drop in ("tags", "image tags") or (drop, split) == ("val tags", "val"):
                image["tags"] = []
        for number, annotation in enumerate(content["annotations"]):
            if drop == "identity":
                del annotation["identity"]
            elif drop == "other identities":
                annotation["identity"] = 5
            elif drop == "val sights" and split == "val":
                annotation["identity"] = number
        if drop == "order" and split == "val":
            content["tags"][0]["name"], content["tags"][1]["name"] = (tag["name"] for tag in content["tags"][1::-1])
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(content))
    with pytest.raises(CloverleafError) as caught:
        config, _ = config_of(tmp_path, **changes)
        check_model(config)
        index = open_index(tmp_path, "train")
        check_data(config, index, open_index(tmp_path, "val"))
        build_model(config, index, Console(quiet=True))
    assert [word for word in words if word not in str(caught.value)] == []
    assert isinstance(caught.value, DataError if drop else ConfigError)


def test_a_branch_that_rests_stays_that_of_the_weights(shapes_json: Path, tmp_path: Path) -> None:
    """Trained further on data with fewer tags and without identities, it keeps its tensors and what they are called."""
    path, index = tmp_path / "some.safetensors", open_index(shapes_json, "train")
    before = build_model(config_of(shapes_json)[0], index, Console(quiet=True))
    before.head.tags.linear.weight.data.fill_(2.0)
    save(before, path, metadata=WeightsMetadata(tag_names=index.tag_names, identities=(1, 5)))
    for split in ("train", "val"):
        content = json.loads((shapes_json / "annotations" / f"{split}.json").read_text())
        content["tags"] = []
        for image in content["images"]:
            image["file_name"], image["tags"] = str(shapes_json / "images" / image["file_name"]), []
        for annotation in content["annotations"]:
            del annotation["identity"]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(content))
    off = {"model.weights": str(path), "loss.multi.tags": 0.0, "loss.multi.embeddings": 0.0}
    config, _ = config_of(tmp_path, **off)
    index = open_index(tmp_path, "train")
    check_data(config, index, open_index(tmp_path, "val"))
    model = build_model(config, index, Console(quiet=True))
    assert (model.head.tags.linear.weight == 2).all() and not model.head.tags.linear.weight.requires_grad
    assert model.head.identities is None and model.head.embeddings is not None
    known = label_names(model.spec, config, index)
    assert len(known.tag_names) == model.spec.head.num_tags and known.identities == (1, 5)


@pytest.mark.parametrize("changes", [{"tags": 0.0}, {"balance": "uncertainty"}])
def test_phases_learn_what_the_run_learns(shapes_json: Path, changes: dict[str, Any]) -> None:
    config, _ = config_of(shapes_json)
    check_phase(config, MultiLossConfig(tags=3.0))
    with pytest.raises(ConfigError, match="in one phase"):
        check_phase(config, MultiLossConfig(**changes))


def test_other_models_do_not_take_the_tasks() -> None:
    with pytest.raises(ConfigError, match=r"--task multi does not fit timm/resnet18.*yolov7-tiny"):
        resolve(nest({"task": "multi", "model.name": "timm/resnet18+fpn+mask-rcnn"}))


def test_tasks_without_labels_can_be_left_out(shapes_json: Path) -> None:
    off = {"model.head.tags": False, "model.head.embeddings": False}
    config, _ = config_of(shapes_json, **off)
    index = open_index(shapes_json, "train")
    model = build_model(config, index, Console(quiet=True))
    assert model.head.tags is None and model.head.embeddings is None and model.spec.head.tasks == ("boxes",)
    assert set(build_criterion(model, config.loss, image_size=64)(model(images()), targets_of(), SIZE).items) == {
        "box", "obj", "cls"
    }  # fmt: skip
