"""What does emulating sparse convolutions cost, against the same dense backbone?

Forward and backward of one training step of the encoder: the plain backbone on whole images, and the sparse one on the
same images of which a share is masked. Both run in turn, so that ratios come from one run: the median over the rounds
of sparse over dense, by wall clock and by processor time (for busy machines). "masked" is the emulation without our
short cuts, a mask behind every layer and BatchNorm by its formula over all positions, to show what they bring.

    python benchmarks/pretrain.py --threads 2 --output pretrain.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import environment, median_ms, median_ratio, write_report
from torch import Tensor, nn

from cloverleaf.layers.sparse.convert import SparseEncoder
from cloverleaf.layers.sparse.layers import MaskedOutput, SparseLayer
from cloverleaf.models import parts

BACKBONES = ("efficient-rep", "csp-bep", "elan-tiny", "csp-tiny", "timm/resnet18")
NAMES = ("dense", "sparse", "masked")


class FormulaNorm(SparseLayer):
    """BatchNorm over visible positions, by masks and sums over all positions."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.cells = norm, norm.cells

    def forward(self, x: Tensor) -> Tensor:
        mask = self.cells.mask(x.shape[2], x.shape[3], x.dtype)
        count = mask.sum()
        mean = (x * mask).sum((0, 2, 3), keepdim=True) / count
        centred = (x - mean) * mask
        variance = centred.square().sum((0, 2, 3), keepdim=True) / count
        scale = torch.rsqrt(variance + self.norm.eps) * self.norm.weight[:, None, None]
        return (centred * scale + self.norm.bias[:, None, None]) * mask


def without_short_cuts(encoder: SparseEncoder) -> SparseEncoder:
    """Masks behind every layer, and norms by their formula."""
    for name, module in list(encoder.backbone.named_modules()):
        if isinstance(module, MaskedOutput):
            module.masks = True
        elif isinstance(module, nn.BatchNorm2d):
            encoder.backbone.set_submodule(name, FormulaNorm(module))
    return encoder


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    dense = parts.backbone_spec(name).build().to(memory_format=torch.channels_last).train()
    patch = max(options.patch_size, dense.features.strides[-1])
    sparse = SparseEncoder(dense, patch).train()
    masked = without_short_cuts(SparseEncoder(dense, patch)).train()
    images = torch.rand(options.batch_size, 3, options.image_size, options.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    cells = options.image_size // patch
    kept = round(cells * cells * (1 - options.mask_ratio))
    order = torch.rand(options.batch_size, cells * cells).argsort(1)
    visible = (order < kept).view(-1, 1, cells, cells)
    actions = {
        "dense": lambda: dense(images),
        "sparse": lambda: sparse(images, visible),
        "masked": lambda: masked(images, visible),
    }
    wall: dict[str, list[float]] = {name: [] for name in actions}
    processor: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(1 + options.repeats):  # the first round warms up
        for key, action in actions.items():
            taken = timed(action)
            if repeat:
                wall[key].append(taken[0])
                processor[key].append(taken[1])
    return {"backbone": name, "wall": summary(wall), "processor": summary(processor)}


def timed(action: Callable[[], tuple[Tensor, ...]]) -> tuple[float, float]:
    """Seconds of forward and backward, on the wall and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    torch.stack([x.float().mean() for x in action()]).sum().backward()
    return time.perf_counter() - start, time.process_time() - used


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    """Median milliseconds, and the median, over the rounds, of the ratio to dense."""
    ratios = {f"{name}_over_dense": median_ratio(times[name], times["dense"], 3) for name in ("sparse", "masked")}
    return {**median_ms(times, 1), **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mask-ratio", type=float, default=0.6)
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    results = []
    for name in options.backbones:
        result = measure(name, options)
        results.append(result)
        for clock in ("wall", "processor"):
            of = result[clock]
            print(
                f"{name:14} {clock:9} dense {of['dense_ms']:7.0f} ms, sparse {of['sparse_ms']:7.0f} ms, ratio "
                f"{of['sparse_over_dense']:.3f}; masked {of['masked_ms']:7.0f} ms, ratio {of['masked_over_dense']:.3f}",
                flush=True,
            )
    write_report(options, environment(), results=results)


if __name__ == "__main__":
    main()
