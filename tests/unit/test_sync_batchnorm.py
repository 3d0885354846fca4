"""Synchronised BatchNorm on the CPU: two processes with half the batch each equal one process with the whole."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.errors import ConfigError
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style
from cloverleaf.pretraining.model import MaskedAutoencoder
from cloverleaf.structures import FeatureSpec
from cloverleaf.training.sync_batchnorm import CpuSyncBatchNorm2d, synchronise_batchnorm

BATCH = torch.randn(6, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 2


def network() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.03), nn.SiLU(), nn.BatchNorm2d(4, affine=False)
    )
    return layers.double().train()


def gradients(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    (model(images).square() * torch.linspace(0, 1, 5, dtype=torch.float64)).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def autoencoder(norm: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> MaskedAutoencoder:
    """Norms over visible positions in the encoder and at the decoder's entrance, over all in the decoder."""
    torch.manual_seed(2)
    backbone = synchronise_batchnorm(RepChain(), "cpu") if norm is CpuSyncBatchNorm2d else RepChain()
    return MaskedAutoencoder(backbone, patch_size=4, width=8, norm=norm).double().train()


class RepChain(nn.Sequential):
    """A backbone of strides 2 and 4."""

    features = FeatureSpec((4, 6), (2, 4))

    def __init__(self) -> None:
        style = Style(activation="relu")
        super().__init__(RepConv(3, 4, 2, style=style), RepConv(4, 6, 2, style=style))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine = self[0](x)
        return fine, self[1](fine)


def reconstruction(model: MaskedAutoencoder, part: slice) -> list[torch.Tensor]:
    """Gradients of an autoencoder that sees ``part`` of the images; images differ in how much is visible."""
    images = torch.randn(6, 3, 8, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 1
    visible = torch.tensor([[k < 1 + i for k in range(6)] for i in range(6)]).view(6, 1, 2, 3)
    (model(images[part], visible[part]).square() * torch.linspace(0, 1, 12, dtype=torch.float64)).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = synchronise_batchnorm(network(), "cpu")
    found = gradients(model, BATCH[:2] if rank == 0 else BATCH[2:])  # unequal shares
    sparse = autoencoder(CpuSyncBatchNorm2d)
    drawn = reconstruction(sparse, slice(2) if rank == 0 else slice(2, None))
    for gradient in [*found, *drawn]:
        dist.all_reduce(gradient)
    if rank == 0:
        torch.save({"gradients": found, "state": model.state_dict()}, Path(folder) / "found.pt")
        torch.save({"gradients": drawn, "state": sparse.state_dict()}, Path(folder) / "sparse.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_equals_one_process(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    model = network()
    torch.testing.assert_close(found["gradients"], gradients(model, BATCH), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found["state"], dict(model.state_dict()), rtol=1e-10, atol=1e-12)
    sparse, found = autoencoder(), torch.load(tmp_path / "sparse.pt", weights_only=True)
    torch.testing.assert_close(found["gradients"], reconstruction(sparse, slice(None)), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found["state"], dict(sparse.state_dict()), rtol=1e-9, atol=1e-11)


def test_names_and_evaluation_stay() -> None:
    plain, synced = network().eval(), synchronise_batchnorm(network(), "cpu").eval()
    assert list(plain.state_dict()) == list(synced.state_dict())
    assert sum(isinstance(module, CpuSyncBatchNorm2d) for module in synced.modules()) == 2
    torch.testing.assert_close(synced(BATCH), plain(BATCH))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_norms_that_do_more_are_refused(device: str) -> None:
    """torch's conversion would leave timm's activations out, in training only."""
    model = TimmSpec(model="regnety_002").build()
    with pytest.raises(ConfigError, match=r"layer body\.stem\.bn \(BatchNormAct2d\) cannot have statistics of several"):
        synchronise_batchnorm(model, device)
