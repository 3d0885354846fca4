"""The LightningModule: one iteration of training, nothing of the mathematics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.data.policy import PURPOSE_MIX
from cloverleaf.data.soft_targets import mix
from cloverleaf.errors import CloverleafError
from cloverleaf.losses.output import LossOutput
from cloverleaf.models.detector import Detector
from cloverleaf.structures import Batch, ByEpoch, Targets
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.input_size import multi_scale_size
from cloverleaf.training.optim import build_optimizer, follow
from cloverleaf.training.schedule import Schedule, StepPlan
from cloverleaf.training.teacher import Teacher, check_same_teacher


class DetectionTask(pl.LightningModule):
    """Trains a detector by `Schedule`; the optimiser is stepped by hand because accumulation changes while warming up.

    Args:
        model: the detector under training.
        criteria: its loss in every epoch.
        warmup_criteria: the loss of the first `config.assigner_warmup` of the epochs, or None.
        teacher: whose lessons the criteria take, or None.
        schedule: learning rates and accumulation.
        config: the run.
    """

    def __init__(
        self,
        model: Detector,
        criteria: ByEpoch[Any],
        schedule: Schedule,
        config: TrainConfig,
        warmup_criteria: ByEpoch[Any] | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.schedule, self.config = model, schedule, config
        self.teacher = teacher  # no module, so that checkpoints do not hold its weights
        # The criteria hold no weights; kept out of the module tree so that checkpoints hold the model only.
        self._criteria = (criteria, warmup_criteria)
        self._waiting: dict[str, Tensor] = {}  # gradients of a resumed run that wait for its next step
        self.stepped = False

    @property
    def criterion(self) -> Any:
        """The loss of the current epoch: a `Criterion`."""
        usual, warmup = self._criteria
        warming = self.current_epoch < round(self.config.assigner_warmup * self.config.epochs)
        return (warmup if warmup is not None and warming else usual).at(self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; learning rates are set before every iteration."""
        return build_optimizer(self.model, self.config.optimizer, self.schedule.weight_decay)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Forward, loss, backward and, when the plan says so, a step.

        Returns:
            The detached loss items of this iteration.
        """
        iteration = self.current_epoch * self.schedule.batches_per_epoch + batch_index
        plan = self.schedule.at(iteration)
        images, targets = self.prepare(batch, iteration)
        output = self._loss(images, targets)
        if not torch.isfinite(output.total):
            raise CloverleafError(
                f"the loss is {float(output.total)} at epoch {self.current_epoch + 1}, iteration {batch_index}",
                f"its parts are { ({k: float(v) for k, v in output.items.items()}) }",
                "lower optimizer.lr, set optimizer.clip_norm=10, or use --precision fp32; "
                "the run can be resumed from its last checkpoint",
            )
        # DistributedDataParallel averages gradients over the processes; the loss is their sum.
        self.manual_backward(output.total * self.trainer.world_size)
        self.stepped = plan.step
        if plan.step:
            self._step(plan)
        return output.items

    def _loss(self, images: Tensor, targets: Targets) -> LossOutput:
        size_hw = (images.shape[2], images.shape[3])
        if self.teacher is None:
            loss: LossOutput = self.criterion(self.model(images), targets, size_hw)
            return loss
        raw, maps = self.model.forward_with_maps(images)
        lesson = self.teacher.lesson(images, self.current_epoch / self.config.epochs, maps)
        taught: LossOutput = self.criterion(raw, targets, size_hw, lesson)
        return taught

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the level weights that `loss.autobalance` adapts, and gradients that still wait for a step."""
        checkpoint["criterion"] = [criterion.state_dict() for criterion in self._criteria[0].values]
        waiting = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        checkpoint["gradients"] = waiting
        if self.teacher is not None:
            checkpoint["teacher"] = self.teacher.digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` kept."""
        check_same_teacher(self.teacher, checkpoint.get("teacher"))
        kept = checkpoint["criterion"]
        states = kept if isinstance(kept, list) else [kept]  # of an older checkpoint
        for criterion, state in zip(self._criteria[0].values, states, strict=True):
            criterion.load_state_dict(state)
        self._waiting = checkpoint.get("gradients", {})

    def on_train_start(self) -> None:
        """Put back the waiting gradients; Lightning has cleared all gradients after the checkpoint was loaded."""
        for name, gradient in self._waiting.items():
            parameter = self.model.get_parameter(name)
            parameter.grad = gradient.to(parameter)
        self._waiting = {}

    def prepare(self, batch: Batch, iteration: int) -> tuple[Tensor, Targets]:
        """uint8 batch -> float32 images in [0, 1] and their targets.

        Images are resized when training is multi-scale, and whole images with a class are mixed; equal for equal
        iterations.
        """
        images, targets = batch.images.float().div_(255), batch.targets.unpacked()
        if self.config.multi_scale:
            stride = max(32, self.model.max_stride)
            share = float(np.random.default_rng((self.config.seed, iteration, 0x5CA1E)).random())
            factor = multi_scale_size(self.config.data.image_size, stride, share) / max(images.shape[2:])
            if factor != 1:
                height, width = (max(round(side * factor / stride), 1) * stride for side in images.shape[2:])
                scale = images.new_tensor([width / images.shape[3], height / images.shape[2]] * 2)
                images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
                targets = _scaled(targets, scale, (height, width))
        if self.config.task == "classify":
            stream = (self.config.seed, iteration, self.global_rank, PURPOSE_MIX)
            images, probabilities = mix(images, targets.labels, self.model.num_classes, self.config.classify, stream)
            targets = replace(targets, class_probs=probabilities)
        return images, targets

    def _step(self, plan: StepPlan) -> None:
        optimizer: Any = self.optimizers()
        follow(optimizer, plan)
        optimizer.step()
        optimizer.zero_grad()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip. Of a float16 run the gradients are unscaled by now, unless a fused optimiser does that in its step."""
        if not self.config.optimizer.clip_norm:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)


def _scaled(targets: Targets, scale_xyxy: Tensor, size_hw: tuple[int, int]) -> Targets:
    """The targets of images that were resized to ``size_hw``."""
    masks, semantic, covered = targets.masks, targets.semantic, targets.covered
    if masks is not None and len(masks):
        masks = F.interpolate(masks[None], size=size_hw, mode="nearest-exact")[0]
    elif masks is not None:
        masks = masks.new_zeros((0, *size_hw))
    if semantic is not None:  # through uint8, as integers of 64 bits cannot be interpolated
        semantic = F.interpolate(semantic.to(torch.uint8)[None], size=size_hw, mode="nearest-exact")[0].long()
    if covered is not None:
        covered = F.interpolate(covered.to(torch.uint8)[None], size=size_hw, mode="nearest-exact")[0].bool()
    return replace(targets, boxes_xyxy=targets.boxes_xyxy * scale_xyxy, masks=masks, semantic=semantic, covered=covered)
