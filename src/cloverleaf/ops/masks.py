"""From what networks say of pixels to pixels of the original image, and to COCO's run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from cloverleaf.ops.letterbox import LetterboxTransform
from cloverleaf.structures.masks import Mask

_MOST_LOGITS = 2**26  # values in memory at once while logits are brought to the size of a large image


def unletterbox(boxes_xyxy: npt.NDArray[Any], letterbox: LetterboxTransform) -> npt.NDArray[np.float64]:
    """``(n, 4)`` boxes from network-input pixels to those of the original image, without cutting them to it."""
    scale_x, scale_y, left, top = letterbox
    offset, scale = np.array([left, top, left, top]), np.array([scale_x, scale_y, scale_x, scale_y])
    return (np.asarray(boxes_xyxy, np.float64).reshape(-1, 4) - offset) / scale


def paste_masks(
    probabilities: npt.NDArray[np.float32],
    boxes_xyxy: npt.NDArray[Any],
    image_hw: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> tuple[Mask, ...]:
    """Masks on a grid over their boxes to pixels of the image (Mask R-CNN, arXiv 1703.06870, section 3).

    A pixel belongs to the object if the probability at its centre is above the threshold: interpolated between the
    centres of the grid's cells, and falling to 0 within a cell beyond the outermost ones. Each mask is kept in a window
    around its box, so that hundreds of them in a large image fit into memory.

    Args:
        probabilities: ``(n, S, S)`` in [0, 1].
        boxes_xyxy: ``(n, 4)`` pixels of the image; they may reach beyond it.
        image_hw: size of the image.
        threshold: lowest probability that counts, exclusive.
    """
    height, width = image_hw
    low = np.clip(np.floor(boxes_xyxy[:, :2]), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(boxes_xyxy[:, 2:]), low, [width, height]).astype(int)
    masks = []
    for grid, box, (x1, y1), (x2, y2) in zip(probabilities, boxes_xyxy, low.tolist(), high.tolist(), strict=True):
        rows = _weights(y1, y2, float(box[1]), float(box[3]), grid.shape[0])
        columns = _weights(x1, x2, float(box[0]), float(box[2]), grid.shape[1])
        masks.append(Mask(x1, y1, rows @ grid @ columns.T > threshold))
    return tuple(masks)


def _weights(start: int, stop: int, low: float, high: float, size: int) -> npt.NDArray[np.float32]:
    """``(stop - start, size)``: how much each cell of a grid over [low, high] counts at the centre of each pixel."""
    centres = np.arange(start, stop) + 0.5
    where = (centres - low) / max(high - low, 1e-6) * size - 0.5  # in cells, the first one's centre at 0
    return np.maximum(1 - np.abs(where[:, None] - np.arange(size)), 0).astype(np.float32)


def to_label_map(
    logits: Tensor, letterbox: LetterboxTransform, original_hw: tuple[int, int]
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The likeliest class of every pixel of the original image, ``(H, W)``.

    The part of the input that the image covers is interpolated (bilinear) to its size; padding plays no part.

    Args:
        logits: ``(K, h, w)`` at the size of the network input.
        letterbox: (scale_x, scale_y, pad_left, pad_top) of the image.
        original_hw: its size.
    """
    scale_x, scale_y, left, top = letterbox
    height, width = original_hw
    y1, x1 = round(top), round(left)
    y2, x2 = min(round(top + height * scale_y), logits.shape[1]), min(round(left + width * scale_x), logits.shape[2])
    inner = logits[None, :, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].float()
    across = (torch.arange(width, device=logits.device) + 0.5) * (2 / width) - 1
    down = (torch.arange(height, device=logits.device) + 0.5) * (2 / height) - 1
    bands = []
    for band in down.split(max(1, _MOST_LOGITS // (logits.shape[0] * width))):
        grid = torch.stack(torch.meshgrid(across, band, indexing="xy"), -1)
        values = F.grid_sample(inner, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
        bands.append(values[0].argmax(0).to(torch.int32).cpu())
    labels = torch.cat(bands).numpy()
    return labels.astype(np.uint8) if logits.shape[0] <= 256 else labels.astype(np.uint16)


def run_lengths(mask: Mask, image_hw: tuple[int, int]) -> list[int]:
    """COCO's run lengths of a mask in an image: column by column, the first run being zeros (it may be 0 long)."""
    height, width = image_hw
    framed = np.zeros((mask.pixels.shape[1], mask.pixels.shape[0] + 2), np.int8)
    framed[:, 1:-1] = mask.pixels.T
    step = np.diff(framed, axis=1)
    columns, rows = np.nonzero(step)  # of every column its runs' starts and ends in turn
    edges = (columns + mask.left) * height + rows + mask.top
    starts, ends = edges[0::2], edges[1::2]
    joined = starts[1:] == ends[:-1]  # a run that reaches the bottom goes on at the top of the next column
    bounds = np.stack([starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]], 1)
    counts: list[int] = np.diff(np.r_[0, bounds.reshape(-1), height * width]).tolist()
    return counts if counts[-1] or len(counts) == 1 else counts[:-1]


def compressed(mask: Mask, image_hw: tuple[int, int]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, ready for JSON: ``size`` (H, W) and ``counts`` as text."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = image_hw
    found = coco_mask.frPyObjects({"size": [height, width], "counts": run_lengths(mask, image_hw)}, height, width)
    counts = found["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}
