"""What a study prepares first: order, once or per seed, failures, given files, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cloverleaf.ablation.plan import make_plan
from cloverleaf.ablation.study import read_study
from cloverleaf.errors import CloverleafError, ConfigError
from cloverleaf.models.catalog import create_model
from cloverleaf.weights.format import WeightsMetadata, save
from tiny_datasets import NAMES, write_coco
from unit.test_ablation_run import order, run, study  # noqa: F401  (a fixture)

STUDY = """\
name: tiny
recipe: small
model: efficient-rep+rep-pan+dense
epochs: 2
seeds: [0, 1]
baseline: plain
set:
  data: {image_size: 64, batch_size: 2}
  model.backbone.width: 0.125
  model.neck.depth: 1
prepare:
  backbone: {run: pretrain, epochs: 3}
  teacher: {run: train, epochs: 4, set: {model.backbone_weights: {prepared: backbone}}}
variations:
  plain:
  taught: {distillation.teacher: {prepared: teacher}}
  begun: {model: {backbone_weights: {prepared: backbone}}}
"""


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "coco"
    folder.mkdir()
    return write_coco(folder)


def config(name: str) -> dict:
    return yaml.safe_load(Path(f"out/runs/{name}/config.yaml").read_text())


def test_steps_come_first_and_once(study: Path) -> None:  # noqa: F811
    study.write_text(STUDY)
    results, said = run(study)
    runs = [f"{name}-seed{seed} new" for seed in (0, 1) for name in ("plain", "taught", "begun")]
    assert order(study) == ["prepared/backbone new", "prepared/teacher new", *runs]
    weights = Path("out/runs/prepared").resolve()
    assert config("taught-seed1")["distillation"]["teacher"] == str(weights / "teacher/weights/best.safetensors")
    assert config("plain-seed1")["distillation"]["teacher"] is None
    for name in ("prepared/teacher", "begun-seed0"):
        assert config(name)["model"]["backbone_weights"] == str(weights / "backbone/weights/backbone.safetensors")
    backbone = config("prepared/backbone")
    assert (backbone["epochs"], backbone["data"]["image_size"], backbone["seed"]) == (3, 64, 0)
    assert backbone["backbone"]["type"] == "efficient-rep" and backbone["backbone"]["width"] == 0.125
    images = sorted(path.name for path in Path(backbone["data"]["source"]).iterdir())
    assert images == ["000000-a.png", "000001-c.png"]  # those of the training split alone
    assert "[1/8] prepare backbone: loss 2.000 to 1.000 in" in said and "[2/8] prepare teacher: AP 0.500 in" in said
    table = Path("out/table.md").read_text()
    assert "| backbone | pretrain efficient-rep(width=0.125), recipe `small`, 3 epochs at 64 px on 2 images" in table
    assert "| begun, step teacher (all seeds) | loss 2.000 to 1.000 | 1:00 |" in table
    assert [made.name for made in results.prepared] == ["backbone", "teacher"]
    run(study)
    assert len(order(study)) == 8
    Path("out/runs/prepared/teacher/weights/best.safetensors").unlink()
    for path in Path("out/runs/taught-seed1").rglob("*.[hj]*"):
        path.unlink()  # report and metrics: the run is to be resumed
    results, said = run(study)
    assert "taught seed 1: FAILED, prepared/teacher/weights/best.safetensors is missing not started" in said
    Path("out").rename("moved")  # results do not hang on where the study lies
    Path("moved").rename("out")
    study.write_text(STUDY.replace("epochs: 3", "epochs: 5"))
    with pytest.raises(ConfigError, match=r"step 'backbone' has changed.*epochs was 3 and is 5"):
        run(study)


def test_a_step_per_seed(study: Path) -> None:  # noqa: F811
    text = STUDY.replace("{run: pretrain", "{run: pretrain, per_seed: true").replace(
        "{run: train", "{run: train, per_seed: true"
    )
    study.write_text(text)
    results, _ = run(study, only=["begun"])
    assert order(study) == [f"{name}-seed{seed} new" for seed in (0, 1) for name in ("prepared/backbone", "begun")]
    assert config("prepared/backbone-seed1")["seed"] == 1
    assert config("begun-seed1")["model"]["backbone_weights"].endswith("backbone-seed1/weights/backbone.safetensors")
    states = [(made.name, made.seed, made.state) for made in results.prepared]
    assert states == [
        ("backbone", 0, "complete"),
        ("backbone", 1, "complete"),
        ("teacher", 0, "missing"),
        ("teacher", 1, "missing"),
    ]


def test_a_failed_step_takes_only_its_runs_along(study: Path) -> None:  # noqa: F811
    study.write_text(STUDY.replace("epochs: 4, set: {", "epochs: 4, set: {optimizer.lr: 10, "))
    results, said = run(study)
    failed = {(result.variation, result.reason) for result in results.runs if result.state == "failed"}
    assert failed == {("taught", "prepare teacher failed: the loss is nan at epoch 1: its parts are nan")}
    assert sum(result.state == "complete" for result in results.runs) == 4
    assert "- Step teacher failed: the loss is nan" in Path("out/table.md").read_text()
    assert (
        "taught seed 0: FAILED, prepare teacher failed: the loss is nan at epoch 1: its parts are nan not started"
        in said
    )
    run(study)  # tried again, from its checkpoint
    assert order(study)[-1] == "prepared/teacher resumed"


def test_a_file_in_place_of_a_step(study: Path, tmp_path: Path) -> None:  # noqa: F811
    study.write_text(STUDY)
    model = create_model("efficient-rep+rep-pan+dense", num_classes=3, backbone={"width": 0.125}, neck={"depth": 1})
    save(model, tmp_path / "mine.safetensors", metadata=WeightsMetadata(class_names=NAMES))
    given = {"teacher": tmp_path / "mine.safetensors"}
    run(study, only=["taught"], prepared=given)
    assert order(study) == ["taught-seed0 new", "taught-seed1 new"]
    kept = Path("out/runs/prepared/teacher.safetensors").resolve()
    assert config("taught-seed0")["distillation"]["teacher"] == str(kept) and kept.is_file()
    assert "| teacher | given: mine.safetensors | taught (all seeds) | - | - |" in Path("out/table.md").read_text()
    with pytest.raises(ConfigError, match="'taught' has changed"):
        run(study, only=["taught"])
    save(create_model("efficient-rep+rep-pan+dense", num_classes=3, backbone={"width": 0.125}, neck={"depth": 1}),
         given["teacher"], metadata=WeightsMetadata(class_names=NAMES))  # fmt: skip
    with pytest.raises(ConfigError, match="is another file"):
        run(study, only=["taught"], prepared=given)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{prepared: teacher}", "{prepared: teecher}", ["study.yaml:16", "'teecher'", "'teacher'"]),
        ("distillation.teacher:", "model.name:", ["study.yaml:16", "model.name takes nothing prepared"]),
        ("{prepared: teacher}", "{prepared: backbone}", ["study.yaml:16", "backbone only"]),
        ("run: pretrain,", "run: pretain,", ["study.yaml:12", "prepare.backbone.run"]),
        ("run: pretrain,", "", ["study.yaml:12", "prepare.backbone.run"]),
        ("run: pretrain,", "run: pretrain, recipe: tiny,", ["study.yaml:12", "no recipe 'tiny' of pretrain"]),
        ("run: pretrain,", "run: pretrain, set: {mask.ratios: 0.5},", ["study.yaml:12", "mask.ratio"]),
        ("run: pretrain,", "run: pretrain, set: {seed: 3},", ["study.yaml:12", "per_seed"]),
        ("run: pretrain,", "run: pretrain, set: {mask.patch_size: 48},", ["study.yaml:12", "multiple of 32"]),
        ("run: pretrain,", "run: pretrain, set: {backbone.width: 0.25},", ["study.yaml:13", "efficient-rep,", "0.12"]),
        ("run: pretrain, epochs: 3", "run: file", ["study.yaml:12", "--prepared backbone=FILE"]),
        ("run: pretrain,", "run: file,", ["study.yaml:12", "epochs of backbone has no effect"]),
        ("run: pretrain,", "run: pretrain, per_seed: true,", ["study.yaml:13", "per_seed: true for it too"]),
        ("run: train,", "run: train, recipe: smal,", ["study.yaml:13", "'small'"]),
        ("epochs: 4, set: {", "epochs: 4, set: {model.head.reg_max: 8, ", ["variation taught", "'teacher'", "reg_max"]),
        ("begun: {model: {", "begun: {model: {backbone: {width: 0.25}, ", [":17", "has efficient-rep."]),
        ("taught: {distillation.teacher: {prepared: teacher}}", "taught:", ["study.yaml:13", "nothing needs teacher"]),
        ("taught: {distillation.teacher: {prepared: teacher}}", "taught: {distillation.cls: 2}", [":16", "no effect"]),
        ("  plain:\n", "  plain: {model.name: timm/resnet18+fpn+point-rend}\n", ["study.yaml:9", "'width'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_first(coco: Path, tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in STUDY
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(CloverleafError) as caught:
        make_plan(*read_study(path), data=coco)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_one_task_for_all(coco: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: mixed\nrecipe: small\nbaseline: boxes\nset: {data.image_size: 64}\nvariations:\n"
        "  boxes: {model.name: timm/resnet18+rep-pan+dense}\n  pixels: {model.name: timm/resnet18+fpn+point-rend}\n"
    )
    with pytest.raises(ConfigError, match=r"study\.yaml:7: variation pixels is for --task semantic"):
        make_plan(*read_study(path), data=coco)
