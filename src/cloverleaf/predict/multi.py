"""Several tasks on one representation: boxes with image-level labels and embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import ConfigError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.evaluation.multi import Example, Place
from cloverleaf.evaluation.retrieval import RetrievalMetrics, retrieval_metrics
from cloverleaf.evaluation.table import DetectionTable
from cloverleaf.evaluation.tags import TagMetrics, tag_metrics
from cloverleaf.ops.embeddings import sample_embeddings
from cloverleaf.ops.letterbox import unletterbox_boxes
from cloverleaf.predict.classes import match_classes
from cloverleaf.predict.detect import Speed, run_batches, to_table
from cloverleaf.predict.engine import Engine, EngineInfo, Several
from cloverleaf.predict.selection import suppression_of
from cloverleaf.structures import Batch, Detections

Boxes = npt.NDArray[np.floating[Any]]
_EXAMPLES = 8  # queries that are kept for a picture


def embed_boxes(
    maps: Sequence[Tensor], strides: Sequence[int], boxes_xyxy: Sequence[Boxes], letterboxes: Sequence[Sequence[float]]
) -> list[npt.NDArray[np.float32]]:
    """Embeddings of boxes of every image of a batch: per image ``(n, D)``, of length 1.

    Args:
        maps: per level ``(B, D, H_l, W_l)``, finest first.
        strides: input pixels per cell of each level.
        boxes_xyxy: per image ``(n, 4)`` in pixels of the original image.
        letterboxes: per image (scale_x, scale_y, pad_left, pad_top).
    """
    placed = [
        boxes * np.array([scale_x, scale_y] * 2, np.float32) + np.array([left, top] * 2, np.float32)
        for boxes, (scale_x, scale_y, left, top) in zip(boxes_xyxy, letterboxes, strict=True)
    ]
    counts, device = [len(boxes) for boxes in placed], maps[0].device
    flat = torch.from_numpy(np.concatenate(placed).astype(np.float32)).to(device)
    image_index = torch.repeat_interleave(torch.arange(len(placed)), torch.tensor(counts)).to(device)
    vectors = sample_embeddings(maps, strides, flat, image_index).cpu().numpy()
    return np.split(vectors, np.cumsum(counts)[:-1])


def to_boxes(boxes_xyxy: Sequence[Any], images: int) -> list[npt.NDArray[np.float32]]:
    """Boxes of so many images as arrays ``(n, 4)``.

    Raises:
        ConfigError: there are not as many, or they have another shape.
    """
    arrays = [np.asarray(boxes, np.float32) for boxes in boxes_xyxy]
    arrays = [boxes.reshape(0, 4) if not boxes.size else boxes for boxes in arrays]
    shapes = [boxes.shape for boxes in arrays]
    if len(arrays) != images or any(len(shape) != 2 or shape[1] != 4 for shape in shapes):
        raise ConfigError(
            "boxes do not fit the images", f"{images} images, and boxes of the shapes {shapes[:5]}",
            "give (n, 4) boxes (left, top, right, bottom) for each image",
        )  # fmt: skip
    return arrays


def with_further(
    detections: Sequence[Detections], output: Several, info: EngineInfo, letterboxes: Sequence[Sequence[float]]
) -> list[Detections]:
    """Detections of a batch with the tags of their images and their own embeddings.

    Args:
        detections: per image, in pixels of the original image; the embedding of a box is that of its part in the image.
        output: what they were made of.
        info: of the model.
        letterboxes: per image (scale_x, scale_y, pad_left, pad_top).
    """
    results = list(detections)
    if output.tags is not None:
        tags, names = output.tags.cpu().numpy(), tag_names(info)
        results = [replace(found, tags=row, tag_names=names) for found, row in zip(results, tags, strict=True)]
    if output.maps is not None:
        vectors = embed_boxes(output.maps, info.embedding_strides, [found.xyxy for found in results], letterboxes)
        results = [replace(found, embeddings=rows) for found, rows in zip(results, vectors, strict=True)]
    return results


def tag_names(info: EngineInfo) -> tuple[str, ...]:
    """The tags that a model knows, by number where they have no names."""
    return info.tag_names or tuple(f"tag {k}" for k in range(info.num_tags))


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a model said of N images and M true objects beside boxes, and what is true.

    Attributes:
        probabilities, tags: ``(N, T)`` and ``(N, T')`` of the tags of the model and of the dataset, or None.
        embeddings: ``(M, D)``, or None.
        identities, image_ids: ``(M,)`` int64.
        boxes_xyxy: ``(M, 4)`` in pixels of the original images.
    """

    probabilities: npt.NDArray[np.float32] | None
    tags: npt.NDArray[np.float32] | None
    embeddings: npt.NDArray[np.float32] | None
    identities: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    boxes_xyxy: npt.NDArray[np.float32]


def several_batches(
    engine: Engine, loader: Iterable[Batch], config: EvalConfig, category_ids: Sequence[int | None]
) -> tuple[DetectionTable, Gathered, Speed]:
    """What is said of every batch, in one pass, and the time it took; embeddings are those at the true boxes.

    Args:
        engine: the model, ready to run.
        loader: batches of letterboxed images.
        config: thresholds of boxes.
        category_ids: category of every label; None for labels that shall not be detected.

    Raises:
        ConfigError: the model has a suppression of its own that cannot be turned into these thresholds.
    """
    suppression = suppression_of(engine.info, config)
    tables: list[DetectionTable] = []
    tags: list[tuple[Any, ...]] = []
    objects: list[tuple[Any, ...]] = []

    def take(output: Several, batch: Batch) -> None:
        tables.append(to_table(output.boxes, batch, suppression, config.multi_label, category_ids))
        if output.tags is not None and batch.targets.tags is not None:
            tags.append((output.tags.cpu().numpy(), batch.targets.tags.numpy()))
        if output.maps is not None and batch.targets.identities is not None:
            objects.append(_true_objects(output.maps, engine.info.embedding_strides, batch))

    speed = run_batches(engine, loader, engine.several, take)
    said, true = (np.concatenate(column) for column in zip(*tags, strict=True)) if tags else (None, None)
    vectors, *facts = (np.concatenate(column) for column in zip(*objects, strict=True)) if objects else _NO_OBJECTS
    return DetectionTable.concatenate(tables), Gathered(said, true, vectors, *facts), speed


_NO_OBJECTS: tuple[Any, ...] = (None, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def _true_objects(maps: Sequence[Tensor], strides: Sequence[int], batch: Batch) -> tuple[Any, ...]:
    """Embeddings, identities, image ids and boxes of the objects of a batch; crowds are left out of targets."""
    targets = batch.targets
    assert targets.identities is not None
    device = maps[0].device
    vectors = sample_embeddings(maps, strides, targets.boxes_xyxy.to(device), targets.image_index.to(device))
    boxes = targets.boxes_xyxy.numpy()
    original = [
        unletterbox_boxes(boxes[targets.image_index.numpy() == k], tuple(letterbox), tuple(size))
        for k, (letterbox, size) in enumerate(
            zip(batch.letterbox.tolist(), batch.original_hw.tolist(), strict=True)
        )
    ]  # fmt: skip
    image_ids = batch.image_ids[targets.image_index].numpy()
    return vectors.cpu().numpy(), targets.identities.numpy(), image_ids, np.concatenate(original)


def judge_tags(info: EngineInfo, index: DetectionIndex, found: Gathered) -> TagMetrics | None:
    """The tags of a dataset by what was said of them; None where the model or the dataset has none.

    Tags are matched by name. The model may know more than the dataset, which are left out.

    Raises:
        DataError: the model does not know a tag of the dataset.
    """
    if found.probabilities is None or found.tags is None:
        return None
    columns = tag_columns(info, index)
    return tag_metrics(found.probabilities[:, columns], found.tags, index.tag_names)


def tag_columns(info: EngineInfo, index: DetectionIndex) -> list[int]:
    """The place of each of the dataset's tags among those of the model.

    Raises:
        DataError: the model does not know a tag of the dataset.
    """
    if info.tag_names is None and info.num_tags == len(index.tag_names):
        return list(range(info.num_tags))  # without names in the order of the dataset
    places = match_classes(tag_names(info), index.tag_names, range(len(index.tag_names)), kind="tag")
    column = {place: k for k, place in enumerate(places)}
    return [column[place] for place in range(len(index.tag_names))]


def judge_embeddings(
    info: EngineInfo, index: DetectionIndex, found: Gathered
) -> tuple[RetrievalMetrics | None, tuple[Example, ...]]:
    """Retrieval of individuals, and some examples of it; None where the model has no embeddings or the dataset no
    identities."""
    if found.embeddings is None:
        return None, ()
    known = None if info.trained_identities is None else np.array(info.trained_identities, np.int64)
    metrics = retrieval_metrics(found.embeddings, found.identities, found.image_ids, trained=known)
    return metrics, _examples(metrics, index, found)


def _examples(metrics: RetrievalMetrics, index: DetectionIndex, found: Gathered) -> tuple[Example, ...]:
    """Queries evenly spread over the dataset."""
    rows = {int(image_id): row for row, image_id in enumerate(index.image_ids.tolist())}

    def place(k: int) -> Place:
        x1, y1, x2, y2 = found.boxes_xyxy[k].tolist()
        return Place(index.image_path(rows[int(found.image_ids[k])]), (x1, y1, x2, y2))

    count = len(metrics.query)
    return tuple(
        Example(
            place(metrics.query[q]),
            tuple(place(k) for k in metrics.nearest[q].tolist() if k >= 0),
            tuple(metrics.similarity[q].tolist()),
            tuple(metrics.right[q].tolist()),
        )
        for q in np.linspace(0, count - 1, min(_EXAMPLES, count)).round().astype(int).tolist()
    )
