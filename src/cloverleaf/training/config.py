"""A training run as one frozen, typed value: recipes return it, `--set` changes it, `config.yaml` keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.dense_config import DistillationConfig
from cloverleaf.training.phase_config import Phases

_STRICT = ConfigDict(extra="forbid")
_NonNegative = Annotated[float, Field(ge=0)]


def _typed(values: Any) -> Any:
    """A name alone stands for a part with its usual options; nothing for none."""
    if not (values is None or isinstance(values, str | dict)):
        raise ValueError("a part is given by its name, its options by their keys")
    return {"type": values or "none"} if values is None or isinstance(values, str) else values


_NamedOptions = Annotated[dict[str, Any], BeforeValidator(_typed)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelConfig:
    """Which detector is trained.

    Attributes:
        name: a catalog name or a composition `BACKBONE+NECK+HEAD`.
        backbone, neck, head: options of the parts, as `create_model` takes them; or another part by its name, or by its
            name as `type` among its options.
        supervision: what supervises the model in training beside its head, by name (`columns`, `reversible-branch`,
            `none`) or as options with the name as `type`; empty for what the model has by itself, usually nothing.
        weights: a Cloverleaf weights file to start from; tensors of equal name and shape are taken over.
        backbone_weights: a file of `cloverleaf pretrain`, or any Cloverleaf weights file, for the backbone alone.
    """

    name: str = "yolov7-tiny"
    backbone: _NamedOptions = Field(default_factory=dict)
    neck: _NamedOptions = Field(default_factory=dict)
    head: _NamedOptions = Field(default_factory=dict)
    supervision: _NamedOptions = Field(default_factory=dict)
    weights: str | None = None
    backbone_weights: str | None = None

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """What is changed of each part, as `DetectorSpec.with_overrides` takes it."""
        return {
            "backbone": self.backbone, "neck": self.neck, "head": self.head, "supervision": self.supervision
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OptimizerConfig:
    """SGD with Nesterov momentum, or AdamW; three parameter groups (norm and implicit, weights, biases).

    Attributes:
        name: which optimiser.
        lr: peak learning rate of the weights.
        lr_images: the rates (also `schedule.warmup_bias_lr`) are for so many images a step, and scale with the images
            that a step really sees; 0 takes them as they are.
        momentum: SGD momentum, or the first beta of AdamW.
        beta2: second beta of AdamW.
        weight_decay: of convolution and linear weights; scaled by batch * accumulation / nominal batch for SGD.
        clip_norm: largest gradient norm; 0 for no clipping.
        layer_decay: each layer of the backbone has the learning rate of the next one times this, so that pre-trained
            weights change the less the earlier they are; 1 gives all the same.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.01
    lr_images: Annotated[int, Field(ge=0)] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.937
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: _NonNegative = 0.0005
    clip_norm: _NonNegative = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScheduleConfig:
    """Learning rate over time, warm-up and gradient accumulation (the published schedule by default).

    Attributes:
        kind: shape of the decay.
        final_factor: learning rate at the end over its peak (`lrf`).
        update: whether the decay moves once per epoch, `epoch` with the lag of the published YOLOv7 and `epoch-exact`
            without one, as in the published Gold-YOLO, or with every iteration.
        span: the decay is drawn out over the whole `run`, or ends with the `phase` that says so; either way it is
            counted from the start of the run.
        warmup_epochs: length of the warm-up.
        warmup_min_iterations: the warm-up is never shorter than this, as published; 0 suits small sets.
        warmup_momentum, warmup_bias_lr: where momentum and the biases' learning rate start.
        warmup_factor: where the weights' learning rate starts, over its peak.
        decay_after_warmup: the decay begins at the end of the warm-up, which ends at the peak, instead of beside it.
        nominal_batch: gradients accumulate until this many images are seen; 0 steps at every iteration.
    """

    kind: Literal["cosine", "linear"] = "cosine"
    final_factor: Annotated[float, Field(gt=0, le=1)] = 0.01
    update: Literal["epoch", "epoch-exact", "iteration"] = "epoch"
    span: Literal["run", "phase"] = "run"
    warmup_epochs: _NonNegative = 3.0
    warmup_min_iterations: Annotated[int, Field(ge=0)] = 1000
    warmup_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.8
    warmup_bias_lr: _NonNegative = 0.1
    warmup_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    decay_after_warmup: bool = False
    nominal_batch: Annotated[int, Field(ge=0)] = 64


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EmaConfig:
    """Exponential moving average of the weights: decay * (1 - exp(-updates / ramp)).

    Attributes:
        enabled: judge and save the average instead of the raw weights.
        decay: limit of the decay.
        ramp: updates after which the decay has reached 63 % of its limit.
    """

    enabled: bool = True
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    ramp: Annotated[float, Field(gt=0)] = 2000.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SwaConfig:
    """Stochastic weight averaging (arXiv 1803.05407): the plain mean of the raw weights at the ends of the last epochs.

    Attributes:
        enabled: keep that mean beside the moving average, and save and judge it at the end.
        start: share of the epochs after which it begins.
        every: epochs between two that count, backwards from the last one.
        lr_factor: learning rate over its peak from `start` on, held constant; None goes on with the schedule.
        images: at most so many training images give the BatchNorm statistics of the mean.
    """

    enabled: bool = False
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75
    every: Annotated[int, Field(ge=1)] = 1
    lr_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    images: Annotated[int, Field(ge=2)] = 512

    def first_epoch(self, epochs: int) -> int:
        """The epoch, counted from 0, with which averaging begins in a run of ``epochs``."""
        return min(round(self.start * epochs), epochs - 1)

    def counts(self, epoch: int, epochs: int) -> bool:
        """Whether the weights at the end of ``epoch``, counted from 0, are averaged."""
        return self.enabled and epoch >= self.first_epoch(epochs) and (epochs - 1 - epoch) % self.every == 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RuntimeConfig:
    """Where and how it runs; changes speed and rounding, not what is learned.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `auto` takes bfloat16 autocast where the hardware has it natively, else float32.
        channels_last: NHWC memory layout.
        deterministic: bit-exact repetition (slower on a GPU).
        threads: intra-op threads; 0 for all CPUs this process may use.
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    deterministic: bool = False
    threads: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Everything that decides a run.

    Attributes:
        recipe: the recipe that these values started from.
        task: what is learned: boxes, objects with masks, the class of every pixel or of the image; must be the task of
            the model.
        epochs: passes over the training split.
        seed: of weights, order and augmentation.
        multi_scale: draw the input size of every batch from 0.5 to 1.5 times the image size.
        auto_anchor: fit anchors to the training boxes when the model's own recall is below 98 %.
        assigner_warmup: share of the epochs, from the first, in which the assigner does not hang on predictions: every
            anchor-ratio candidate is a positive of an anchor-based head, ATSS chooses those of an anchor-free one.
        save_every: also keep the weights of every n-th epoch; 0 for best and last only.
        patience: stop after so many epochs without a better fitness; 0 never stops early. Of a run with phases only
            epochs of the last one count.
        phases: by name, in order, what differs in stretches of the run; empty for a run that is all of a piece. Another
            number of epochs scales them in proportion.
    """

    recipe: str = ""
    task: Literal["detect", "instance", "semantic", "classify", "multi"] = "detect"
    epochs: Annotated[int, Field(ge=1)] = 300
    seed: Annotated[int, Field(ge=0)] = 0
    multi_scale: bool = False
    auto_anchor: bool = True
    assigner_warmup: Annotated[float, Field(ge=0, le=1)] = 0.0
    save_every: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    output: str = ""
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    classify: ClassifyConfig = Field(default_factory=ClassifyConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    distillation: DistillationConfig = Field(default_factory=DistillationConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    ema: EmaConfig = Field(default_factory=EmaConfig)
    swa: SwaConfig = Field(default_factory=SwaConfig)
    evaluation: EvalConfig = Field(default_factory=EvalConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    phases: Phases = Field(default_factory=dict)

    @property
    def output_dir(self) -> Path:
        """The run folder."""
        return Path(self.output)
