"""BatchNorm over all processes on any device; torch's own version runs on GPUs only."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.errors import ConfigError


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes; the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class CpuSyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch; same state dict as `BatchNorm2d`.

    (B, C, H, W) -> (B, C, H, W). Statistics are at least in float32; the running variance is the unbiased one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; plain BatchNorm in evaluation or in a single process."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = values.new_full((1,), values.numel() / values.shape[1])
        total = _AllReduceSum.apply(torch.cat([values.sum((0, 2, 3)), count]))
        mean, size = total[:-1] / total[-1], total[-1]
        centred = values - mean[None, :, None, None]  # two passes: the mean of squares would cancel digits
        variance = _AllReduceSum.apply(centred.square().sum((0, 2, 3))) / size
        with torch.no_grad():
            if (
                self.track_running_stats
                and self.running_mean is not None
                and self.running_var is not None
                and self.num_batches_tracked is not None
            ):
                self.num_batches_tracked += 1
                momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(variance.detach() * size / (size - 1), momentum)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normalised = centred * scale[None, :, None, None]
        if self.bias is not None:
            normalised = normalised + self.bias[None, :, None, None]
        return normalised.to(x.dtype)


def synchronise_batchnorm(model: nn.Module, device_kind: str) -> nn.Module:
    """A model whose BatchNorm2d layers see the global batch; parameters are shared with ``model``, names are kept.

    Raises:
        ConfigError: a layer is a BatchNorm that does more, such as timm's with an activation inside: torch's conversion
            would drop that.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and type(module) not in (nn.BatchNorm2d, CpuSyncBatchNorm2d):
            raise ConfigError(
                f"layer {name} ({type(module).__name__}) cannot have statistics of several processes",
                "they share the batch, and BatchNorm must see all of it",
                "train with one process, or choose another backbone",
            )
    if device_kind == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, module in list(model.named_modules()):
        if type(module) is nn.BatchNorm2d:
            model.set_submodule(name, _synchronised(module))
    return model


def _synchronised(norm: nn.BatchNorm2d) -> CpuSyncBatchNorm2d:
    synced = CpuSyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    synced.weight, synced.bias = norm.weight, norm.bias
    synced.running_mean, synced.running_var = norm.running_mean, norm.running_var
    synced.num_batches_tracked = norm.num_batches_tracked
    synced.training = norm.training
    return synced
