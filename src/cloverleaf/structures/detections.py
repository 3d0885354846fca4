"""Detections of one image, in pixels of the original image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.structures.masks import Mask


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one image, sorted by descending score.

    Attributes:
        xyxy: ``(n, 4)`` float32 boxes in pixels of the original image.
        scores: ``(n,)`` float32 in [0, 1].
        labels: ``(n,)`` int64 class indices.
        class_names: all names of the model; ``class_names[labels[i]]`` names detection i.
        image_hw: size of the original image.
        source: where the image came from (a path, or "" for an array).
        category_ids: per label the id used in COCO results; the label itself where None.
        masks: a mask per detection in pixels of the original image, each in a window around it; None for a model that
            gives no masks.
        tags: ``(T,)`` float32 probabilities of the image-level labels; None for a model that gives none.
        tag_names: of the image-level labels.
        embeddings: ``(n, D)`` float32, of length 1, a vector per detection that tells individuals apart; None for a
            model that gives none.
    """

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]
    source: str = ""
    category_ids: tuple[int, ...] | None = field(default=None, repr=False)
    masks: tuple[Mask, ...] | None = field(default=None, repr=False)
    tags: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    tag_names: tuple[str, ...] = field(default=(), repr=False)
    embeddings: npt.NDArray[np.float32] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: Any) -> Detections:
        """A subset, by mask, slice or integer array."""
        if isinstance(index, int | np.integer):
            index = [int(index)]
        kept = np.arange(len(self))[index].tolist()
        return replace(
            self,
            xyxy=self.xyxy[index],
            scores=self.scores[index],
            labels=self.labels[index],
            masks=None if self.masks is None else tuple(self.masks[k] for k in kept),
            embeddings=None if self.embeddings is None else self.embeddings[index],
        )

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], float, int, str]]:
        """Yield (box xyxy, score, label, name) per detection."""
        for box, score, label in zip(self.xyxy, self.scores, self.labels, strict=True):
            yield box, float(score), int(label), self.class_names[label]

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.class_names[label] for label in self.labels]

    def tagged(self, threshold: float = 0.5) -> list[tuple[str, float]]:
        """Names and probabilities of the image-level labels that are at least so probable, the likeliest first."""
        if self.tags is None:
            return []
        order = np.argsort(-self.tags, kind="stable").tolist()
        return [(self.tag_names[k], float(self.tags[k])) for k in order if self.tags[k] >= threshold]

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO results rows: bbox (x, y, width, height) rounded to 3 decimals, score to 5, as published."""
        ids = self.category_ids
        rows = []
        for (x1, y1, x2, y2), score, label in zip(
            self.xyxy.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            rows.append({
                "image_id": image_id,
                "category_id": ids[label] if ids is not None else label,
                "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
                "score": round(score, 5),
            })  # fmt: skip
        return rows

    def full_masks(self) -> npt.NDArray[np.bool_] | None:
        """``(n, H, W)`` bool masks over the whole image (n bytes a pixel); None without masks."""
        if self.masks is None:
            return None
        full = np.zeros((len(self), *self.image_hw), np.bool_)
        for canvas, mask in zip(full, self.masks, strict=True):
            height, width = mask.pixels.shape
            canvas[mask.top : mask.top + height, mask.left : mask.left + width] = mask.pixels
        return full

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections`` (for drawing, tracking, slicing)."""
        import supervision as sv

        return sv.Detections(
            xyxy=self.xyxy.reshape(-1, 4).copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.astype(int),
            mask=self.full_masks(),
            data={"class_name": np.array(self.names, dtype=object if not len(self) else None)},
        )
