"""The published Gold-YOLO recipes (arXiv 2309.11331 and the released configurations).

All share 300 epochs of SGD with Nesterov momentum from scratch, three epochs of warm-up and mosaics until the last 15
epochs. Step 1 trains with the anchor branch beside the head. Step 2, the recipes named `-distill`, trains anew with the
best weights of step 1 as the teacher. Learning rates are those of the released batch sizes and hold for any batch size,
because the loss grows with the batch; see `DenseLossConfig.nominal_batch`.
"""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.dense_config import DenseLossConfig, DistillationConfig
from cloverleaf.training.config import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


def gold_yolo_s() -> TrainConfig:
    """Step 1 for s: GIoU loss, batches of 256."""
    return TrainConfig(
        recipe="gold-yolo-s",
        epochs=300,
        model=ModelConfig(name="gold-yolo-s", head={"aided": True}),
        data=DataConfig(image_size=640, batch_size=256),
        augment=AugmentConfig(
            translate=0.1, scale=0.5, mosaic=1.0, mosaic9=0.0, mixup=0.0, paste_in=0.0, close_mosaic=15
        ),
        loss=LossConfig(dense=DenseLossConfig(iou="giou", nominal_batch=32)),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, momentum=0.937, weight_decay=0.0005),
        schedule=ScheduleConfig(final_factor=0.01, warmup_epochs=3.0, update="epoch-exact"),
    )


def gold_yolo_n() -> TrainConfig:
    """Step 1 for n: SIoU loss, batches of 128."""
    base = gold_yolo_s()
    return replace(
        base, recipe="gold-yolo-n", model=replace(base.model, name="gold-yolo-n"),
        data=replace(base.data, batch_size=128), loss=LossConfig(dense=DenseLossConfig(iou="siou", nominal_batch=16)),
    )  # fmt: skip


def gold_yolo_m() -> TrainConfig:
    """Step 1 for m: as for s, with stronger zoom and mixup."""
    base = gold_yolo_s()
    return replace(
        base, recipe="gold-yolo-m", model=replace(base.model, name="gold-yolo-m"),
        augment=replace(base.augment, scale=0.9, mixup=0.1),
    )  # fmt: skip


def gold_yolo_l() -> TrainConfig:
    """Step 1 for l: as for m."""
    base = gold_yolo_m()
    return replace(base, recipe="gold-yolo-l", model=replace(base.model, name="gold-yolo-l"))


def gold_yolo_n_distill() -> TrainConfig:
    """Step 2 for n: the direct box branch learns beside the distributions and is what is kept."""
    return _distilled(gold_yolo_n(), {"direct": True}, cls=1.0)


def gold_yolo_s_distill() -> TrainConfig:
    """Step 2 for s; see `gold_yolo_n_distill`."""
    return _distilled(gold_yolo_s(), {"direct": True}, cls=1.0)


def gold_yolo_m_distill() -> TrainConfig:
    """Step 2 for m: the plain head."""
    return _distilled(gold_yolo_m(), {}, cls=0.8)


def gold_yolo_l_distill() -> TrainConfig:
    """Step 2 for l: the plain head, batches of 128 at half the learning rate."""
    base = gold_yolo_l()
    base = replace(
        base, data=replace(base.data, batch_size=128), optimizer=replace(base.optimizer, lr=0.005),
        loss=LossConfig(dense=replace(base.loss.dense, nominal_batch=16)),
    )  # fmt: skip
    return _distilled(base, {}, cls=2.0)


def _distilled(base: TrainConfig, head: dict[str, bool], *, cls: float) -> TrainConfig:
    return replace(
        base, recipe=f"{base.recipe}-distill", model=replace(base.model, head=head),
        distillation=DistillationConfig(teacher="", cls=cls, dfl=1.0, teacher_mode="train"),
    )  # fmt: skip
