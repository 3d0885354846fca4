"""What benchmarks of backbones have in common: parameters, operations, and the ways to run one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cloverleaf.deploy.onnx_file import open_session
from cloverleaf.layers.rep import reparameterize


@dataclass(frozen=True)
class Cost:
    """Of a folded backbone: parameters, and 2 x multiply-accumulates for one image."""

    params: int
    flops: int

    @property
    def text(self) -> str:
        return f"{self.params / 1e6:6.2f} M, {self.flops / 1e9:6.2f} GFLOPs"


def folded(spec: Any) -> nn.Module:
    """The backbone for inference, with statistics under which its signal does not fade."""
    torch.manual_seed(0)
    model: nn.Module = spec.build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 0.6)
    return reparameterize(model)


def cost_of(spec: Any, size: int) -> Cost:
    model = folded(spec).to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops())


def actions_of(spec: Any, size: int) -> dict[str, Callable[[], Any]]:
    """One image through the folded backbone: eager PyTorch in channels-last order, and ONNX Runtime."""
    model = folded(spec)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (images,), input_names=["images"], dynamo=True, verbose=False)
    assert program is not None
    session = open_session(program.model_proto.SerializeToString())
    pixels, last = images.numpy(), images.to(memory_format=torch.channels_last)
    eager = model.to(memory_format=torch.channels_last)
    return {"eager": lambda: eager(last), "onnxruntime": lambda: session.run(None, {"images": pixels})}
