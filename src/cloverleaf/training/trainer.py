"""Lightning, set up for a run."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from cloverleaf.training.config import RuntimeConfig
from cloverleaf.training.runtime import Runtime


class RunSettings(Protocol):
    """What the loop needs to know of a configuration."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""

    @property
    def runtime(self) -> RuntimeConfig:
        """Where and how it runs."""


def build_trainer(
    config: RunSettings, runtime: Runtime, world_size: int, run_dir: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Lightning's trainer: loop, device, precision and distribution; everything else is switched off."""
    backend = "nccl" if runtime.accelerator == "cuda" else "gloo"
    return pl.Trainer(
        accelerator=runtime.accelerator,
        devices=runtime.devices,
        num_nodes=runtime.nodes,
        strategy=DDPStrategy(process_group_backend=backend) if world_size > 1 else "auto",
        plugins=[LightningEnvironment()] if world_size == 1 else None,  # a SLURM allocation alone is one process
        precision=runtime.lightning_precision,
        max_epochs=config.epochs,
        logger=TensorBoardLogger(save_dir=run_dir, name="", version="tensorboard"),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=config.runtime.deterministic,
        default_root_dir=run_dir,
    )


def run(trainer: pl.Trainer, task: pl.LightningModule, loader: DataLoader[Any], checkpoint: Path | None) -> None:
    """Train. Lightning turns Ctrl-C into `SystemExit` and ignores it from then on; here it stays a Ctrl-C."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None


def quieten_lightning() -> None:
    """Lightning's hints about loggers, devices and workers are answered by `fit` already."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.pytorch\..*", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's use of torch's pytree
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # 1x1 in channels_last
