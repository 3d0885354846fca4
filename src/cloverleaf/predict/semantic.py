"""A class for every pixel: from a model's output to label maps in pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cloverleaf.ops.masks import to_label_map
from cloverleaf.predict.detect import Speed, run_batches
from cloverleaf.predict.engine import Engine, segmenting
from cloverleaf.structures import Batch


def segment_batches(
    engine: Engine, loader: Iterable[Batch], take: Callable[[int, npt.NDArray[np.unsignedinteger]], None]
) -> Speed:
    """Label maps of every image, and the time they took.

    Args:
        engine: the model, ready to run.
        loader: batches of letterboxed images.
        take: is given the image's id and its ``(H, W)`` label map in original pixels.
    """
    model = segmenting(engine)

    def take_batch(logits: Tensor, batch: Batch) -> None:
        for values, image_id, letterbox, size in zip(
            logits, batch.image_ids.tolist(), batch.letterbox.tolist(), batch.original_hw.tolist(), strict=True
        ):
            take(image_id, to_label_map(values, tuple(letterbox), (size[0], size[1])))

    return run_batches(engine, loader, model.segment, take_batch)
