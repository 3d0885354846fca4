"""Classes of whole images: from a model's output to a judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cloverleaf.predict.detect import Speed, run_batches
from cloverleaf.predict.engine import Engine
from cloverleaf.structures import Batch


def classify_batches(
    engine: Engine,
    loader: Iterable[Batch],
    take: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64], list[int]], None],
) -> Speed:
    """Probabilities of every image, and the time they took.

    Args:
        engine: the model, ready to run.
        loader: batches of whole images with their classes.
        take: is given the probabilities ``(B, K)``, the true labels ``(B,)`` and the images' ids.
    """

    def take_batch(probabilities: Tensor, batch: Batch) -> None:
        take(probabilities.cpu().numpy(), batch.targets.labels.numpy(), batch.image_ids.tolist())

    return run_batches(engine, loader, engine.classify, take_batch)
