"""Study files: what is wrong is said with file, line and nearest key, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloverleaf.ablation.plan import make_plan
from cloverleaf.ablation.study import read_study
from cloverleaf.errors import CloverleafError, ConfigError
from tiny_datasets import write_coco

STUDY = """\
name: tiny
recipe: small
model: elan-tiny+elan-pan+anchor
epochs: 2
seeds: [0, 1]
baseline: plain
set:
  data: {image_size: 64, batch_size: 2}
  model.backbone.width: 0.125
  model.neck.width: 0.125
  model.head.width: 0.125
variations:
  other:
    optimizer:
      lr: 1e-3
  plain:
"""


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "coco"
    folder.mkdir()
    return write_coco(folder)


def plan(folder: Path, text: str, data: Path | None, **options):
    path = folder / "study.yaml"
    path.write_text(text)
    return make_plan(*read_study(path), data=data, **options)


def test_variations_become_complete_configurations(coco: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, STUDY, coco)
    assert [variation.name for variation in found.variations] == ["plain", "other"]  # the baseline first
    assert [run.name for run in found.runs] == ["plain-seed0", "other-seed0", "plain-seed1", "other-seed1"]
    plain, other = found.runs[2].config, found.runs[3].config
    assert (plain.seed, plain.epochs, plain.recipe, plain.data.image_size) == (1, 2, "small", 64)
    assert plain.optimizer.name == "adamw" and plain.optimizer.lr == 0.002  # the recipe's
    assert other.optimizer.name == "adamw" and other.optimizer.lr == 0.001
    assert found.variations[0].spec.num_classes == 3 and found.variations[0].spec.backbone.width == 0.125
    assert found.dataset["train_images"] == 2 and found.dataset["judged_images"] == 1


def test_command_line_narrows_and_overrides(coco: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, STUDY, coco, seeds=[7], only=["other"], changes={"epochs": 1})
    assert [(run.name, run.config.epochs) for run in found.runs] == [("other-seed7", 1)]
    assert len(found.variations) == 2  # the table shows all


def test_a_variation_may_change_recipe_and_model(coco: Path, tmp_path: Path) -> None:
    text = STUDY + "  published: {recipe: yolov7-tiny, model: {name: yolov7-tiny}}\n"
    published = plan(tmp_path, text, coco).variations[-1].config
    assert published.recipe == "yolov7-tiny" and published.optimizer.name == "sgd"
    assert published.model.name == "yolov7-tiny" and published.epochs == 2 and published.data.image_size == 64


def test_without_a_recipe_the_data_choose_one_for_all(coco: Path, tmp_path: Path) -> None:
    found = plan(tmp_path, STUDY.replace("recipe: small\n", ""), coco)
    assert {variation.config.recipe for variation in found.variations} == {"small"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs: 2", "epoch: 2", ["study.yaml:4", "'epoch'", "'epochs'"]),
        ("name: tiny\n", "", ["name is missing"]),
        ("baseline: plain", "baseline: plan", ["study.yaml:6", "'plan'", "'plain'"]),
        ("epochs: 2", "metric: AP5O\nepochs: 2", ["study.yaml:4", "'AP5O'", "'AP50'"]),
        ("seeds: [0, 1]", "seeds: [0, 0]", ["study.yaml:5", "twice"]),
        ("seeds: [0, 1]", "seeds: [0, -1]", ["study.yaml:5", "seeds.1", "greater than or equal to 0"]),
        ("seeds: [0, 1]", "seeds: []", ["study.yaml:5", "at least 1"]),
        ("epochs: 2", "epochs: two", ["study.yaml:4", "integer"]),
        ("  plain:\n", "  plain:\n  plain: {epochs: 3}\n", ["study.yaml:17", "twice", "line 16"]),
        ("  plain:\n", "  plain:\n  no: {}\n", ["study.yaml", "False", "quotes"]),
        ("  plain:\n", "  plain:\n  ../up: {}\n", ["study.yaml:17", "'../up'", "letters"]),
        ("  plain:\n", "  plain: 3\n", ["study.yaml:16", "variations.plain"]),
        ("seeds: [0, 1]", "seeds: [0, 1", ["study.yaml:6", "not valid YAML"]),
        ("lr: 1e-3", "lrr: 1e-3", ["study.yaml:15", "variation other", "optimizer.lrr", "optimizer.lr"]),
        ("lr: 1e-3", "lr: -1", ["study.yaml:15", "optimizer.lr", "greater than 0"]),
        ("model.neck.width", "model.nek.width", ["study.yaml:10", "model.nek"]),
        ("model.neck.width", "model.neck.wide", ["study.yaml:10", "neck", "'wide'", "'width'"]),
        ("  plain:\n", "  plain:\n  last: {model.neck.width: no}\n", ["study.yaml:17", "variation last", "neck.width"]),
        ("  plain:\n", "  plain:\n  last: {model.name: yolov7-tyni}\n", ["study.yaml:17", "yolov7-tiny"]),
        ("  plain:\n", "  plain:\n  last: {model.backbone: revcol-nan}\n", ["study.yaml:17", "last", "revcol-nano"]),
        ("  plain:\n", "  plain:\n  last: {recipe: smal}\n", ["study.yaml:17", "'small'"]),
        ("  plain:\n", "  plain:\n  last: {data.image_size: 100}\n", ["study.yaml:17", "last", "96"]),
        ("  plain:\n", "  plain:\n  last: {loss.auxiliary: independent}\n", ["study.yaml:17", "no auxiliary head"]),
        ("  plain:\n", "  plain:\n  last: {seed: 3}\n", ["study.yaml:17", "seed", "seeds"]),
        ("  plain:\n", "  plain:\n  last: {data: {source: x}}\n", ["study.yaml:17", "data.source", "--data"]),
        ("  plain:\n", "  plain:\n  last: {data.val_split: train}\n", ["study.yaml:17", "same images"]),
        ("  plain:\n", "  plain:\n  last: {runtime.device: cuda:9}\n", ["study.yaml:17", "cuda:9"]),
        ("  plain:\n", "  plain:\n  last: {model.weights: none.safetensors}\n", ["study.yaml:17", "none.safetensors"]),
        ("seeds: [0, 1]", "split: test", ["no split 'test'"]),
        ("recipe: small", "recipe: big", ["study.yaml:2", "no recipe 'big'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_before_the_first_run(
    coco: Path, tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in STUDY
    with pytest.raises(CloverleafError) as caught:
        plan(tmp_path, STUDY.replace(old, new), coco)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": None}, ["no dataset", "--data"]),
        ({"data": Path("nowhere")}, ["nowhere"]),
        ({"only": ["plian"]}, ["--only", "'plain'"]),
        ({"changes": {"optimizer": {"lrr": 1}}}, ["--set", "optimizer.lr"]),
        ({"changes": {"seed": 1}}, ["--set seed", "seeds"]),
    ],
)
def test_wrong_options(coco: Path, tmp_path: Path, options: dict, words: list[str]) -> None:
    with pytest.raises(CloverleafError) as caught:
        plan(tmp_path, STUDY, **{"data": coco, **options})
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("content", [None, "", "- a\n- b\n", b"\xff\xfe\x00"])
def test_no_study(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "study.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        read_study(path)
