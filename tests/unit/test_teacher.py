"""Who may teach whom, and what a teacher does to a run: nothing but lessons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cloverleaf
from cloverleaf.errors import CheckpointError, CloverleafError, ConfigError
from cloverleaf.losses.dense_config import DistillationConfig
from cloverleaf.training.teacher import build_teacher, check_same_teacher
from cloverleaf.weights import WeightsMetadata

NAMES = ("circle", "square", "star")
NARROW = {"backbone": {"width": 0.25}, "neck": {"width": 0.25}}
STUDENT = "csp-tiny+elan-pan+dense"


def model_of(name: str = STUDENT, classes: int = 3, **options):
    options = {**(NARROW if name == STUDENT else {}), **options}
    return cloverleaf.create_model(name, num_classes=classes, **options)


def saved(path: Path, model, names: tuple[str, ...] = NAMES) -> str:
    cloverleaf.save(model, path, metadata=WeightsMetadata(class_names=names))
    return str(path)


def teach(teacher: str, student=None, image_size: int = 64, **options):
    return build_teacher(DistillationConfig(teacher=teacher, **options), student or model_of(), NAMES, image_size)


@pytest.mark.parametrize("name", ["elan-tiny+elan-pan+dense", STUDENT])
@pytest.mark.parametrize("head", [{}, {"aided": True}, {"direct": True}])
@pytest.mark.parametrize("fused", [False, True])
def test_any_dense_head_with_the_same_output_may_teach(tmp_path: Path, name: str, head: dict, fused: bool) -> None:
    options = {"backbone": {"width": 0.25}, "neck": {"width": 0.25}, "head": head}
    model = model_of(name, **options)
    path = saved(tmp_path / "teacher.safetensors", model.fused() if fused else model)
    if fused and "direct" in head:  # what is left of it predicts no distributions
        with pytest.raises(ConfigError, match="reg_max 0"):
            teach(path)
        return
    student, images = model_of(), torch.rand(2, 3, 64, 96)
    teacher = teach(path, student)
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    maps = student.features(images)
    lesson = teacher.lesson(images, 0.5, maps)
    assert lesson.raw.logits.shape == student.head(maps).logits.shape and not lesson.raw.logits.requires_grad
    assert lesson.weight == pytest.approx(0.505) and lesson.maps is None
    torch.testing.assert_close(lesson.raw.logits, model.eval()(images).logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in teacher.model.state_dict().items())


def test_a_teacher_in_training_mode_sees_the_batch_and_keeps_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher.safetensors", model_of("gold-yolo-n"))
    teacher, images = teach(path, teacher_mode="train"), torch.rand(4, 3, 64, 64)
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    live = teacher.lesson(images, 0.0, ()).raw.distances
    assert all(torch.equal(value, before[key]) for key, value in teacher.model.state_dict().items())
    settled = teach(path).lesson(images, 0.0, ()).raw.distances
    assert live.shape == settled.shape


@pytest.mark.parametrize(
    ("student", "teacher", "names", "options", "words"),
    [
        ({}, {}, ("circle", "star", "square"), {}, ["another order", "class 1 is 'star' to it and 'square'"]),
        ({}, {"classes": 2}, NAMES[:2], {}, ["it has 2, the data 3", "does not know star"]),
        ({}, {}, ("circle", "square", "moon"), {}, ["only the teacher knows moon", "does not know star"]),
        ({}, {}, (), {}, ["names no classes"]),
        ({}, {"name": "csp-tiny+elan-pan+anchor"}, NAMES, {}, ["dense", "csp-tiny+elan-pan+anchor"]),
        ({"name": "csp-tiny+elan-pan+anchor"}, {}, NAMES, {}, ["cannot teach csp-tiny+elan-pan+anchor"]),
        ({}, {"head": {"reg_max": 8}}, NAMES, {}, ["reg_max 8", "16", "distillation.dfl=0"]),
        ({"head": {"reg_max": 0}}, {"head": {"reg_max": 0}}, NAMES, {}, ["reg_max 0", "distillation.dfl=0"]),
        ({}, {"neck": {"width": 0.5}}, NAMES, {"feature": 10.0}, ["widths", "distillation.feature=0"]),
        ({}, {}, NAMES, {"teacher_mode": "train", "fused": True}, ["is fused", "teacher_mode=eval"]),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, student, teacher, names, options, words) -> None:
    options = dict(options)
    model = model_of(**teacher)
    path = saved(tmp_path / "teacher.safetensors", model.fused() if options.pop("fused", False) else model, names)
    with pytest.raises(ConfigError) as error:
        teach(path, model_of(**student), **options)
    assert [word for word in words if word not in " ".join(str(error.value).split())] == []


def test_other_distances_do_not_matter_without_that_term(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher.safetensors", model_of(head={"reg_max": 8}))
    assert teach(path, dfl=0.0) is not None


@pytest.mark.parametrize(
    ("file", "message"),
    [("", "its weights with --teacher"), ("gone.safetensors", "no weights file"), ("x.onnx", "exported file"),
     ("note.txt", "cannot be read")],
)  # fmt: skip
def test_files_that_are_no_teacher(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(CloverleafError, match=message):
        teach(str(tmp_path / file) if file else "")


def test_an_image_size_that_the_teacher_cannot_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "teacher.safetensors", model_of())
    with pytest.raises(ConfigError, match="coarsest map has stride 32"):
        teach(path, image_size=72)


def test_options_without_teacher_are_refused() -> None:
    assert build_teacher(DistillationConfig(), model_of(), NAMES, 64) is None
    with pytest.raises(ConfigError, match=r"distillation.cls = 0.5 has no effect"):
        build_teacher(DistillationConfig(cls=0.5), model_of(), NAMES, 64)


def test_a_resumed_run_needs_the_same_teacher(tmp_path: Path) -> None:
    teacher = teach(saved(tmp_path / "teacher.safetensors", model_of()))
    check_same_teacher(teacher, teacher.digest)
    check_same_teacher(None, None)
    with pytest.raises(CheckpointError, match="changed"):
        check_same_teacher(teacher, "another")
