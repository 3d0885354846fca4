"""Instances and pixels: coordinates through the loader and back, what is refused, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask

from cloverleaf.data.require_masks import require_masks
from cloverleaf.data.source import open_index
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.instances import InstanceMetrics
from cloverleaf.evaluation.semantic import SemanticMetrics
from cloverleaf.predict.evaluate import evaluate
from cloverleaf.predict.job import SaveOptions, run_job
from cloverleaf.predict.predictor import Predictor
from cloverleaf.predict.results import ResultFolder
from cloverleaf.predict.selection import evaluation_config
from cloverleaf.predict.sources import find_sources
from cloverleaf.recipes.resolve import resolve
from cloverleaf.structures import Targets
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.region_advice import region_advice
from cloverleaf.training.task import _scaled
from cloverleaf.training.tasks import check_data, check_model, check_options
from segmenters import InstanceFinder, PixelFinder

SIZES = ((97, 251), (320, 320), (481, 639), (640, 333), (60, 50), (201, 200))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One white rectangle with a run-length mask per picture, pictures of odd sizes, and an empty one."""
    folder = tmp_path_factory.mktemp("masked")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES, start=1):
        left, top = int(rng.integers(0, width // 3)), int(rng.integers(0, height // 3))
        right, bottom = int(rng.integers(width // 2, width)), int(rng.integers(height // 2, height))
        pixels = np.full((height, width, 3), 30, np.uint8)
        if number != 2:
            pixels[top:bottom, left:right] = 255
            found = coco_mask.encode(np.asfortranarray(pixels[..., 0] == 255).astype(np.uint8))
            counts = found["counts"] if isinstance(found["counts"], str) else found["counts"].decode()
            box = [left, top, right - left, bottom - top]
            row = {"id": number, "image_id": number, "category_id": 17, "bbox": box, "area": box[2] * box[3]}
            annotations.append({**row, "iscrowd": 0, "segmentation": {"size": [height, width], "counts": counts}})
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    categories = [{"id": 4, "name": "ghost"}, {"id": 17, "name": "square"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def test_perfect_instances_are_judged_perfect_whatever_the_sizes(dataset: Path) -> None:
    result = evaluate(InstanceFinder(), dataset, image_size=640, batch_size=2, device="cpu", workers=0)  # type: ignore[arg-type]
    assert isinstance(result.metrics, InstanceMetrics) and result.task == "instance"
    assert result.metrics["mask_AP50"] == pytest.approx(1) and result.metrics["mask_AP"] > 0.9
    assert result.metrics["AP50"] == pytest.approx(1)
    assert {row["category_id"] for row in result.rows} == {4, 17} and all("segmentation" in row for row in result.rows)
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["protocol"] == {"confidence": 0.001, "max_detections": 300, "ap_detections": 100}
    assert content["classes"][1]["mask_AP50"] == pytest.approx(1) and content["fitness"] == content["mask_AP"]


@pytest.mark.parametrize("names", [("background", "ghost", "square"), ("background", "other", "square", "ghost")])
def test_perfect_pixels_are_judged_perfect_whatever_the_order(dataset: Path, names: tuple[str, ...]) -> None:
    model = PixelFinder(names)
    model.num_classes = len(names)  # a fourth class is never called
    result = evaluate(model, dataset, image_size=640, batch_size=2, device="cpu", workers=0)  # type: ignore[arg-type]
    assert isinstance(result.metrics, SemanticMetrics) and result.rows == []
    assert result.metrics["mIoU"] > 0.97 and result.metrics["pixel_accuracy"] > 0.985
    assert result.metrics.class_names == ("background", "ghost", "square") and np.isnan(result.metrics.iou[1])
    assert result.ignored_classes == (("other",) if "other" in names else ())


@pytest.mark.parametrize("size", [256, 320])
def test_predictions_fit_the_original_pixels(dataset: Path, size: int) -> None:
    for path in sorted(dataset.parent.glob("*.png")):
        image = cv2.imread(str(path))
        white = image[..., 0] == 255
        found = Predictor(InstanceFinder(), image_size=size, device="cpu")(path)  # type: ignore[arg-type]
        [labels] = Predictor(PixelFinder(), image_size=size, device="cpu").segment([path])  # type: ignore[arg-type]
        assert labels.image_hw == white.shape and ((labels.labels == 2) != white).mean() < 0.02
        if not white.any():
            assert not len(found) and found.masks == ()
            continue
        assert found.names == ["square"] and found.masks is not None
        mask = found.masks[0].full(white.shape)
        assert (mask != white).mean() < 0.03
        assert found.to_supervision().mask[0].sum() == mask.sum() == found.masks[0].area


def test_what_a_prediction_run_leaves(dataset: Path, tmp_path: Path) -> None:
    found = find_sources([dataset.parent / "1.png", dataset.parent / "4.png"])
    for model, place in ((InstanceFinder(), tmp_path / "instances"), (PixelFinder(), tmp_path / "pixels")):
        place.mkdir()
        lines: list[str] = []
        predictor = Predictor(model, image_size=320, device="cpu", confidence=None)  # type: ignore[arg-type]
        summary = run_job(predictor, found, ResultFolder(place, found.images), SaveOptions(json=True), lines.append)
        assert summary.images == 2 and summary.counts["square"] == 2 and "square" in lines[0]
    content = json.loads((tmp_path / "instances" / "predictions.json").read_text())
    for image, row in zip(content["images"], content["detections"], strict=True):
        assert row["segmentation"]["size"] == [image["height"], image["width"]]
        decoded = coco_mask.decode(row["segmentation"])
        assert abs(int(decoded.sum()) - row["bbox"][2] * row["bbox"][3]) < 0.05 * decoded.sum()
    content = json.loads((tmp_path / "pixels" / "predictions.json").read_text())
    assert content["detections"] == [] and [row["id"] for row in content["categories"]] == [0, 1, 2]
    for image in content["images"]:
        labels = cv2.imread(str(tmp_path / "pixels" / image["labels"]), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == (image["height"], image["width"])
        assert (labels == 2).mean() == pytest.approx(image["shares"]["square"], abs=1e-5)
        picture = cv2.imread(str(tmp_path / "pixels" / Path(image["file_name"]).name))
        assert picture.shape[1] == image["width"] and picture.shape[0] > image["height"]  # with its legend


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (InstanceFinder(), {"iou": 0.5}, "iou cannot be set"),
        (InstanceFinder(), {"class_agnostic": True}, "class_agnostic"),
        (InstanceFinder(), {"max_detections": 101}, "at most 100"),
        (PixelFinder(), {"confidence": 0.5}, "likeliest class"),
        (PixelFinder(), {"classes": ["square"]}, "classes cannot be set"),
    ],
)
def test_thresholds_that_a_task_does_not_have(model: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Predictor(model, device="cpu", **options)


def test_each_task_has_its_own_call(dataset: Path) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ConfigError, match="segment"):
        Predictor(PixelFinder(), device="cpu")(image)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no label maps"):
        Predictor(InstanceFinder(), device="cpu").segment([image])  # type: ignore[arg-type]
    few = Predictor(InstanceFinder(detections=5), device="cpu").engine  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="gives at most 5"):
        evaluate(few, dataset, config=EvalConfig(max_detections=300))
    assert evaluation_config(few.info, max_detections=400).ap_detections == 400


def test_a_dataset_without_masks_is_refused_by_name(dataset: Path, tmp_path: Path) -> None:
    content = json.loads(dataset.read_text())
    del content["annotations"][2]["segmentation"]
    for row in content["images"]:
        row["file_name"] = str(dataset.parent / row["file_name"])
    (tmp_path / "val.json").write_text(json.dumps(content))
    index = open_index(tmp_path / "val.json", "val")
    with pytest.raises(DataError, match=r"objects without a mask.*\n?.*1 of 5.*4\.png"):
        require_masks(index)
    require_masks(index, boxes_as_masks=True)
    for row in content["annotations"]:
        row.pop("segmentation", None)
    (tmp_path / "bare-val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no masks"):
        evaluate(InstanceFinder(), tmp_path / "bare-val.json", device="cpu", workers=0)  # type: ignore[arg-type]
    boxes = evaluate(
        PixelFinder(), tmp_path / "bare-val.json", image_size=320, device="cpu", workers=0, boxes_as_masks=True  # type: ignore[arg-type]
    )  # fmt: skip
    assert boxes.metrics["mIoU"] > 0.95


def config(task: Any, **changes: Any) -> TrainConfig:
    recipe = {"detect": "small", "instance": "mask-rcnn", "semantic": "point-rend"}[task]
    return replace(resolve({"task": task}, recipe=recipe)[0], **changes)


def test_the_model_decides_the_task_and_the_task_has_a_model() -> None:
    assert resolve({})[0].task == "detect"
    assert resolve({"model": {"name": "mask-rcnn-resnet50-gd"}})[0].task == "instance"
    assert resolve({"task": "semantic"})[0].model.name == "timm/resnet18+fpn+point-rend"
    assert resolve({}, recipe="point-rend")[0].task == "semantic"
    for changes in ({"task": "semantic", "model": {"name": "yolov7-tiny"}},
                    {"task": "detect", "model": {"name": "mask-rcnn-resnet50-fpn"}}):  # fmt: skip
        with pytest.raises(ConfigError, match="does not fit") as caught:
            resolve(changes)
        assert "--task" in str(caught.value)
    with pytest.raises(ConfigError, match="task = 'masks'"):
        resolve({"task": "masks"})
    with pytest.raises(ConfigError, match="point-rend"):
        check_model(replace(TrainConfig(), task="semantic"))


@pytest.mark.parametrize(
    ("task", "part", "changes", "says"),
    [
        ("instance", "augment", {"mosaic": 0.5, "mosaic9": 0.2}, "tiles overlap"),
        ("instance", "augment", {"paste_in": 0.1}, "pasted over"),
        ("semantic", "augment", {"mosaic": 0.5, "mixup": 0.1}, "two classes"),
        ("semantic", "evaluation", {"confidence": 0.1}, "no effect"),
        ("instance", "evaluation", {"iou": 0.5}, "no effect"),
        ("detect", "data", {"boxes_as_masks": True}, "no effect"),
    ],
)
def test_options_that_do_not_fit_the_task(task: str, part: str, changes: dict[str, Any], says: str) -> None:
    base = config(task)
    with pytest.raises(ConfigError, match=says):
        check_options(replace(base, **{part: replace(getattr(base, part), **changes)}))


def test_what_fits_is_not_refused(dataset: Path) -> None:
    base = config("instance")
    check_options(replace(base, augment=replace(base.augment, mosaic=0.5, mixup=0.3)))  # both masks stay, as boxes do
    never = replace(base.augment, mosaic=0.0, mosaic9=0.2, mixup=0.1, copy_paste=0.1)
    check_options(replace(config("semantic"), augment=never))  # all belong to mosaics, of which there are none
    index = open_index(dataset, "val")
    for task in ("detect", "instance", "semantic"):
        check_data(config(task), index)


@pytest.mark.parametrize("objects", [0, 3])
def test_masks_and_pixels_follow_a_multi_scale_batch(objects: int) -> None:
    masks = torch.zeros(objects, 32, 64, dtype=torch.uint8)
    masks[:, 8:16, :32] = 1
    semantic = torch.zeros(1, 32, 64, dtype=torch.int64)
    semantic[:, :, 32:] = 255
    none = torch.zeros(objects, dtype=torch.int64)
    targets = Targets(torch.ones(objects, 4), none, none, 1, masks=masks, semantic=semantic)
    scaled = _scaled(targets, torch.tensor([1.5, 1.5, 1.5, 1.5]), (48, 96))
    assert scaled.masks is not None and scaled.masks.shape == (objects, 48, 96)
    assert scaled.masks.sum((1, 2)).tolist() == [12 * 48] * objects and scaled.masks.dtype == torch.uint8
    assert scaled.semantic is not None and scaled.semantic.dtype == torch.int64
    assert (scaled.semantic[0, :, 48:] == 255).all() and not scaled.semantic[0, :, :48].any()


def test_objects_that_regions_are_not_set_up_for_are_counted() -> None:
    """Two images of 200 px, shown at 100 px: one large object, and 40 small ones of 20 px, of which one is a crowd."""
    boxes = np.array([[0, 0, 100, 100], *([[0, 0, 20, 20]] * 40)], np.float64)
    index: Any = SimpleNamespace(
        boxes_xyxy=boxes, crowd=np.arange(41) == 40, object_offsets=np.array([0, 1, 41]),
        sizes_hw=np.full((2, 2), 200, np.int32),
    )  # fmt: skip
    small, crowded = region_advice(index, ((32,), (64,)), detections=30, image_size=100)
    assert small.startswith("at 100 px 98% of the objects are too small") and "anchor_sides_px=[[16], [32]]" in small
    assert "1 of 2 images hold more than 30 objects" in crowded and "--set model.head.detections=40" in crowded
    assert "evaluation.ap_detections=40" in crowded and "max_detections=300" in crowded
    assert region_advice(index, ((16,), (32,)), detections=40, image_size=100) == []
    index.boxes_xyxy, index.crowd, index.object_offsets = boxes[:0], np.zeros(0, bool), np.zeros(3, np.int64)
    assert region_advice(index, ((16,), (32,)), detections=40, image_size=100) == []
