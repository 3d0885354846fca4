"""From a `TrainConfig` to a run folder with trained weights: builds everything and hands it to Lightning."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from cloverleaf.data.class_loader import build_class_train_loader
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import build_train_loader
from cloverleaf.data.source import list_splits, open_index
from cloverleaf.data.subset import take_share
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.heads.regions import RegionHead
from cloverleaf.models.criterion import build_criterion, warmup_criterion
from cloverleaf.models.detector import Detector
from cloverleaf.structures import ByEpoch
from cloverleaf.training import run_dir as folders
from cloverleaf.training.anchors import resolve_anchors
from cloverleaf.training.callbacks.averaging import EmaCallback, SwaCallback
from cloverleaf.training.callbacks.judge import JudgeCallback
from cloverleaf.training.callbacks.norm_start import NormStartCallback
from cloverleaf.training.callbacks.order import OrderCallback
from cloverleaf.training.callbacks.pictures import BatchPicturesCallback
from cloverleaf.training.callbacks.progress import ProgressCallback
from cloverleaf.training.callbacks.record import RecordCallback
from cloverleaf.training.check import check_fit
from cloverleaf.training.checkpoint import check_same_labels, resume_from
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import config_hash, write_config
from cloverleaf.training.distributed import sum_over_processes
from cloverleaf.training.finish import TrainResult, finish, read_result
from cloverleaf.training.multi import advice as tag_advice
from cloverleaf.training.multi import check_phase, label_names
from cloverleaf.training.phases import Phase, blamed, resolve_phases, to_check
from cloverleaf.training.region_advice import region_advice
from cloverleaf.training.runtime import Runtime, check_shares, resolve_runtime, world
from cloverleaf.training.schedule import Schedule
from cloverleaf.training.starting_weights import build_model, provenance
from cloverleaf.training.sync_batchnorm import synchronise_batchnorm
from cloverleaf.training.task import DetectionTask
from cloverleaf.training.tasks import (
    RUN_TASKS,
    check_data,
    check_model,
    check_options,
    model_classes,
    target_options,
)
from cloverleaf.training.teacher import Teacher, build_teacher
from cloverleaf.training.trainer import build_trainer, quieten_lightning, run
from cloverleaf.weights.format import WeightsMetadata


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The two splits of a run."""

    train: DetectionIndex
    val: DetectionIndex


def fit(
    config: TrainConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
    notes: dict[str, Any] | None = None,
) -> TrainResult:
    """Train as ``config`` says and leave a complete run folder.

    Args:
        config: the run; `output` and `data.source` must be set.
        resume: continue from the last whole checkpoint in `output`; ends in the same weights as an unbroken run
            when `runtime.deterministic` is set.
        console: where progress is printed.
        notes: said in the report: `command`, `recipe_reason`.

    Raises:
        CloverleafError: wrong configuration, unusable data, a folder in use, nothing to resume from, or a loss
            that is no longer finite.
    """
    with ExitStack() as holding:
        return _fit(config, resume, console, notes, holding)


def _fit(
    config: TrainConfig, resume: bool, console: Console | None, notes: dict[str, Any] | None, holding: ExitStack
) -> TrainResult:
    """As `fit`; ``holding`` takes the lock of the run folder."""
    rank, world_size, _ = world()
    console = console or Console(soft_wrap=True)
    quiet = Console(quiet=True)
    say = console if rank == 0 else quiet
    quieten_lightning()
    run_dir = config.output_dir
    _check(config, world_size)
    phases = resolve_phases(config)
    if resume and (finished := read_result(run_dir)) is not None:
        say.print(f"{run_dir} is complete; its report is {finished.report}", highlight=False, markup=False)
        return finished
    if resume and rank == 0:
        holding.enter_context(folders.held(run_dir))
    checkpoint = resume_from(run_dir, say) if resume else None
    if not resume and rank == 0:
        folders.require_free(run_dir)
    runtime = resolve_runtime(config.runtime)
    torch.manual_seed(config.seed)
    check_model(config)
    for phase in to_check(config):
        with blamed(phase):
            check_options(phase.of(config))
            check_phase(config, phase.loss.multi)
    data = open_data(config)
    check_data(config, data.train, data.val)
    model = build_model(config, data.train, say)
    teacher = build_teacher(config.distillation, model, data.train.names, config.data.image_size)
    check_fit(config, model, teacher, len(data.train))
    metadata = _metadata(model, data.train, config)
    if resume:
        check_same_labels(run_dir, metadata)
    loader = _train_loader(config, phases, data.train, rank, world_size)
    if not resume and rank == 0:  # only now, so that a wrong option does not use up the folder
        folders.create(run_dir)
        holding.enter_context(folders.held(run_dir))
        write_config(config, run_dir / "config.yaml")
    schedule = Schedule(
        config.schedule, config.optimizer, config.epochs, len(loader), config.data.batch_size, config.swa,
        phases.map(lambda phase: phase.schedule),
    )  # fmt: skip
    _fit_anchors(model, data.train, config, say)  # before the criterion, which reads the anchors; the same on resume
    _announce(model, data, config, runtime, schedule, loader.num_workers, say)
    if isinstance(model.head, RegionHead):
        for line in region_advice(
            data.train, model.head.anchor_sides_px, model.head.detections, config.data.image_size
        ):
            say.print(f"note: {line}", highlight=False, markup=False)
    for line in tag_advice(model, config):
        say.print(f"note: {line}", highlight=False, markup=False)
    ema = EmaCallback(model, config.ema)
    task = _build_task(model, schedule, config, phases, runtime, world_size, teacher)
    judge = JudgeCallback(ema, data.val, config, loader.num_workers)
    record = RecordCallback(run_dir, config, ema, judge, metadata, phases)
    order = OrderCallback(loader.batch_sampler.sampler)  # type: ignore[union-attr]
    swa = SwaCallback(config.swa, config.epochs) if config.swa.enabled else None
    callbacks: list[pl.Callback] = [order, NormStartCallback(), ema, *([swa] if swa is not None else []), judge, record]
    if rank == 0:
        callbacks += [
            ProgressCallback(record, config.epochs, say),
            BatchPicturesCallback(run_dir / "pictures", data.train.names),
        ]
    started = time.perf_counter()
    run(build_trainer(config, runtime, world_size, run_dir, callbacks), task, loader, checkpoint)
    return finish(
        config, data.train, data.val, record, runtime, say, swa=swa,
        notes={**(notes or {}), "wall_seconds": round(time.perf_counter() - started, 1)}, is_first=rank == 0,
    )  # fmt: skip


def _check(config: TrainConfig, world_size: int) -> None:
    if not config.data.source:
        raise ConfigError("no dataset", "--data is not given", "give a data.yaml, a COCO JSON or a folder")
    folders.check_output(config.output)
    check_shares(config.data.batch_size, world_size)


def open_data(config: TrainConfig) -> TrainingData:
    """The splits to learn from and to judge on.

    Raises:
        DataError: the dataset cannot be read or has no such split, or the splits disagree on the classes.
    """
    train = take_share(open_index(config.data.source, config.data.train_split), config.data.fraction, config.seed)
    val = _open_val(config)
    if train.names != val.names:
        raise DataError(
            f"{config.data.source}: the splits disagree on the classes",
            f"{config.data.train_split} has {list(train.names)}, {config.data.val_split} has {list(val.names)}",
            "use the same class list in both",
        )
    return TrainingData(train, val)


def _train_loader(
    config: TrainConfig, phases: ByEpoch[Phase], index: DetectionIndex, rank: int, world_size: int
) -> DataLoader[Any]:
    """The images as the task learns from them."""
    if RUN_TASKS[config.task].whole_images:
        return build_class_train_loader(
            index, config.data, config.classify, seed=config.seed, rank=rank, world_size=world_size
        )
    return build_train_loader(
        index, config.data, phases.map(lambda phase: phase.augment), epochs=config.epochs, seed=config.seed, rank=rank,
        world_size=world_size, targets=target_options(config),
    )  # fmt: skip


def _open_val(config: TrainConfig) -> DetectionIndex:
    splits = list_splits(config.data.source)
    if config.data.val_split not in splits and splits == [config.data.train_split]:
        raise DataError(
            f"{config.data.source} has no split {config.data.val_split!r}", f"it has {splits[0]} only",
            f"set some images apart, or judge on the training images with --set data.val_split={splits[0]}",
        )  # fmt: skip
    return open_index(config.data.source, config.data.val_split)


def _fit_anchors(model: Detector, index: DetectionIndex, config: TrainConfig, say: Console) -> None:
    if not config.auto_anchor or not model.has_anchors:
        return
    anchors, text = resolve_anchors(
        index, model.anchors_px, image_size=config.data.image_size, anchor_t=config.loss.anchor_t, seed=config.seed
    )
    model.box_head.set_anchors(anchors)
    say.print(f"anchors: {text}", highlight=False)


def _build_task(
    model: Detector,
    schedule: Schedule,
    config: TrainConfig,
    phases: ByEpoch[Phase],
    runtime: Runtime,
    world_size: int,
    teacher: Teacher | None,
) -> DetectionTask:
    if config.runtime.channels_last:
        model = model.to(memory_format=torch.channels_last)
        if teacher is not None:
            teacher.to(memory_format=torch.channels_last)
    reduce = sum_over_processes if world_size > 1 else None
    criteria = phases.map(lambda phase: phase.loss).map(
        lambda loss: build_criterion(
            model, loss, image_size=config.data.image_size, distillation=config.distillation, reduce=reduce
        )
    )
    warmup = criteria.map(warmup_criterion) if config.assigner_warmup else None
    if world_size > 1:
        synchronise_batchnorm(model, runtime.accelerator)
        if teacher is not None:
            teacher.synchronised(runtime.accelerator)
    return DetectionTask(model, criteria, schedule, config, warmup, teacher)


def _metadata(model: Detector, index: DetectionIndex, config: TrainConfig) -> WeightsMetadata:
    return replace(
        label_names(model.spec, config, index),
        class_names=model_classes(config.task, index.names),
        category_ids=None if config.task == "semantic" else index.category_ids,
        image_size=config.data.image_size,
        task=config.task,
        recipe_hash=config_hash(config),
        parent=config.model.weights or config.model.backbone_weights or "",
        teacher=config.distillation.teacher or "",
        provenance=provenance(config),
    )


def _announce(
    model: Detector,
    data: TrainingData,
    config: TrainConfig,
    runtime: Runtime,
    schedule: Schedule,
    workers: int,
    say: Console,
) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    per_step = schedule.accumulate * config.data.batch_size
    say.print(
        f"{config.model.name}: {parameters / 1e6:.2f} M parameters, {len(data.train.names)} classes, "
        f"{len(data.train)} training and {len(data.val)} validation images\n"
        f"epochs {config.epochs}, iterations {schedule.batches_per_epoch} each, batch {config.data.batch_size}, "
        f"{per_step} images a step, {config.data.image_size} px, loader processes {workers}\n"
        f"on {runtime.accelerator}, {runtime.precision} ({runtime.reason}); run folder {config.output}",
        highlight=False,
        markup=False,
    )
