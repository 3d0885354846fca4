"""From a `PretrainConfig` to a run folder with a backbone's weights."""

from __future__ import annotations

import csv
import json
import platform
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from torch import nn

from cloverleaf import __version__, atomic
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.models import parts
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.data import build_loader
from cloverleaf.pretraining.geometry import Cells, lay_out
from cloverleaf.pretraining.images import ImageList, find_images
from cloverleaf.pretraining.model import MaskedAutoencoder
from cloverleaf.pretraining.pictures import Reconstructions
from cloverleaf.pretraining.progress import PretrainProgress
from cloverleaf.pretraining.record import WEIGHTS, PretrainRecord
from cloverleaf.pretraining.schedule import PretrainSchedule
from cloverleaf.pretraining.task import PretrainTask
from cloverleaf.reports.reconstructions import plot_pretraining
from cloverleaf.training import run_dir as folders
from cloverleaf.training.callbacks.norm_start import NormStartCallback
from cloverleaf.training.callbacks.order import OrderCallback
from cloverleaf.training.checkpoint import resume_from
from cloverleaf.training.config_io import config_hash, write_config
from cloverleaf.training.runtime import Runtime, check_shares, resolve_runtime, world
from cloverleaf.training.sync_batchnorm import CpuSyncBatchNorm2d, synchronise_batchnorm
from cloverleaf.training.trainer import build_trainer, quieten_lightning, run
from cloverleaf.weights.backbone import IMAGENET, PLAIN, BackboneMetadata, describe

NORMALISATIONS = {"none": PLAIN, "imagenet": IMAGENET}


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a run left.

    Attributes:
        run_dir: the run folder.
        weights: of the backbone, for `train --backbone-weights`.
        report: the self-contained report.
        metrics: what metrics.json holds.
    """

    run_dir: Path
    weights: Path
    report: Path
    metrics: dict[str, Any]


def fit(
    config: PretrainConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
    notes: dict[str, Any] | None = None,
) -> PretrainResult:
    """Pre-train as ``config`` says and leave a complete run folder.

    Args:
        config: the run; `output`, `backbone` and `data.source` must be set.
        resume: continue from the last whole checkpoint in `output`; ends in the same weights as an unbroken run when
            `runtime.deterministic` is set.
        console: where progress is printed.
        notes: said in the report: `command`, `recipe_reason`.

    Raises:
        CloverleafError: wrong configuration, a backbone that cannot be sparse, no usable image, a folder in use,
            nothing to resume from, or a loss that is no longer finite.
    """
    with ExitStack() as holding:
        return _fit(config, resume, console, notes, holding)


def _fit(
    config: PretrainConfig, resume: bool, console: Console | None, notes: dict[str, Any] | None, holding: ExitStack
) -> PretrainResult:
    """As `fit`; ``holding`` takes the lock of the run folder."""
    rank, world_size, _ = world()
    say = (console or Console(soft_wrap=True)) if rank == 0 else Console(quiet=True)
    quieten_lightning()
    run_dir = config.output_dir
    _check(config, world_size)
    if resume and (finished := read_result(run_dir)) is not None:
        say.print(f"{run_dir} is complete; its report is {finished.report}", highlight=False, markup=False)
        return finished
    if resume and rank == 0:
        holding.enter_context(folders.held(run_dir))
    checkpoint = resume_from(run_dir, say) if resume else None
    if not resume and rank == 0:
        folders.require_free(run_dir)
    torch.manual_seed(config.seed)
    spec = backbone_of(config)
    backbone = spec.build()
    images = find_images(config.data)
    batch_size = min(config.data.batch_size, len(images))
    if len(images) < world_size:
        raise DataError(
            f"{len(images)} usable images for {world_size} processes",
            "each needs one at least",
            "start fewer processes",
        )
    cells = lay_out(
        config.data.image_size, config.mask.patch_size, config.mask.ratio, stride=backbone.features.strides[-1],
        images_per_step=batch_size // world_size,
    )  # fmt: skip
    model = build_model(backbone, config, cells, world_size)
    runtime = resolve_runtime(config.runtime)
    loader = build_loader(images.paths, config.data, cells, seed=config.seed, rank=rank, world_size=world_size)
    if not resume and rank == 0:  # only now, so that a wrong option does not use up the folder
        folders.create(run_dir)
        holding.enter_context(folders.held(run_dir))
        write_config(config, run_dir / "config.yaml")
    schedule = _schedule(config, batch_size, len(loader))
    _announce(model, describe(spec), images, batch_size, cells, config, runtime, len(loader), loader.num_workers, say)
    metadata = BackboneMetadata(
        backbone=parts.to_dict(spec), normalisation=NORMALISATIONS[config.data.normalize],
        image_size=config.data.image_size, images=len(images), recipe_hash=config_hash(config),
        pretraining={"mask_ratio": config.mask.ratio, "patch_size": cells.patch_size},
    )  # fmt: skip
    reconstructions = Reconstructions(images.paths, config, cells, run_dir / "pictures")
    record = PretrainRecord(run_dir, metadata, images.fingerprint(), reconstructions, config.epochs)
    order = OrderCallback(loader.batch_sampler.sampler)  # type: ignore[union-attr]
    callbacks: list[pl.Callback] = [order, NormStartCallback(), record]
    if rank == 0:
        callbacks.append(PretrainProgress(record, config.epochs, say))
    trainer = build_trainer(config, runtime, world_size, run_dir, callbacks)
    run(trainer, PretrainTask(model, schedule, config), loader, checkpoint)
    if rank:
        return _result(run_dir, {})
    facts = {"unreadable_images": images.unreadable, "images": len(images), "visible_patches": cells.visible}
    return _finish(config, describe(spec), record, runtime, {**facts, **(notes or {})}, say)


def backbone_of(config: PretrainConfig) -> Any:
    """The options of the backbone to train.

    Raises:
        ConfigError: none is named, an option is unknown or wrong, or pixels would be normalised twice.
        UnknownModelError: no backbone of that name.
    """
    options = dict(config.backbone)
    name = options.pop("type", None)
    if not name:
        raise ConfigError("no backbone", "--backbone is not given", "name one, e.g. --backbone efficient-rep")
    if name == "timm" and "model" in options:
        name = f"timm/{options.pop('model')}"
    spec = parts.override("backbone", parts.backbone_spec(str(name)), options)
    if getattr(spec, "normalize", False) and config.data.normalize != "none":
        raise ConfigError(
            f"data.normalize = {config.data.normalize} with backbone.normalize = true",
            "pixels would be normalised twice", "leave one of them out",
        )  # fmt: skip
    return spec


def build_model(backbone: nn.Module, config: PretrainConfig, cells: Cells, world_size: int) -> MaskedAutoencoder:
    """Encoder and decoder, in the wanted memory layout; with several processes norms see the positions of all.

    Raises:
        ConfigError: the backbone cannot be sparse, or has norms that cannot be shared by processes.
    """
    norm: type[nn.BatchNorm2d] = nn.BatchNorm2d
    if world_size > 1:
        norm = CpuSyncBatchNorm2d  # of plain tensor operations, so it serves GPUs as well
        synchronise_batchnorm(backbone, "cpu")
    model = MaskedAutoencoder(backbone, patch_size=cells.patch_size, width=config.decoder.width, norm=norm)
    return model.to(memory_format=torch.channels_last) if config.runtime.channels_last else model


def read_result(run_dir: Path) -> PretrainResult | None:
    """What a complete run left; None while it is not complete."""
    if not (run_dir / "report.html").is_file() or not (run_dir / "metrics.json").is_file():
        return None
    return _result(run_dir, json.loads((run_dir / "metrics.json").read_text(encoding="utf-8")))


def _result(run_dir: Path, metrics: dict[str, Any]) -> PretrainResult:
    return PretrainResult(run_dir, run_dir / WEIGHTS, run_dir / "report.html", metrics)


def _check(config: PretrainConfig, world_size: int) -> None:
    if not config.data.source:
        raise ConfigError("no images", "--images is not given", "give a folder of images, a data.yaml or a COCO JSON")
    folders.check_output(config.output)
    check_shares(config.data.batch_size, world_size)


def _schedule(config: PretrainConfig, batch_size: int, batches: int) -> PretrainSchedule:
    options, total = config.optimizer, config.epochs * batches
    return PretrainSchedule(
        lr=options.lr * batch_size / 256, weight_decay=options.weight_decay,
        weight_decay_end=options.weight_decay_end, warmup=min(round(options.warmup_epochs * batches), total // 2),
        total=total,
    )  # fmt: skip


def _announce(
    model: MaskedAutoencoder,
    backbone: str,
    images: ImageList,
    batch_size: int,
    cells: Cells,
    config: PretrainConfig,
    runtime: Runtime,
    batches: int,
    workers: int,
    say: Console,
) -> None:
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.encoder, model.decoder)]
    say.print(
        f"{backbone}: {sizes[0]:.2f} M parameters, decoder {sizes[1]:.2f} M; {len(images)} images\n"
        f"epochs {config.epochs}, iterations {batches} each, batch {batch_size}, "
        f"{config.data.image_size} px, {cells.visible} of {cells.side**2} patches of {cells.patch_size} px visible, "
        f"loader processes {workers}\n"
        f"on {runtime.accelerator}, {runtime.precision} ({runtime.reason}); run folder {config.output}",
        highlight=False,
        markup=False,
    )


def _finish(
    config: PretrainConfig, backbone: str, record: PretrainRecord, runtime: Runtime, notes: dict[str, Any], say: Console
) -> PretrainResult:
    """Draw the curve, write metrics.json and, last of all, the report: a run that has it is complete."""
    from cloverleaf.reports.pretraining import write_pretraining_report

    run_dir = config.output_dir
    with (run_dir / "results.csv").open(encoding="utf-8") as file:
        plot_pretraining(list(csv.DictReader(file)), run_dir / "pictures" / "training.png")
    metrics = {
        "backbone": backbone,
        "epochs": len(record.rows),
        "loss": record.rows[-1]["train/loss"],
        "first_loss": record.rows[0]["train/loss"],
        "run": {
            **notes, "recipe": config.recipe, "training_seconds": round(record.seconds, 1),
            "device": runtime.accelerator, "precision": runtime.precision,
            "processor": platform.processor() or platform.machine(), "cpus": usable_cpus(), "cloverleaf": __version__,
            "torch": torch.__version__,
        },
    }  # fmt: skip
    atomic.write_json(run_dir / "metrics.json", metrics, indent=2)
    report = write_pretraining_report(run_dir)
    result = _result(run_dir, metrics)
    say.print(
        f"loss {metrics['first_loss']:.4f} -> {metrics['loss']:.4f}\nweights {result.weights}\nreport  {report}",
        highlight=False,
        markup=False,
    )
    return result
