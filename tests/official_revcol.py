"""Writes checkpoint files of the structure in which RevCol is published: state dicts among things that are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import official_files as official


class CfgNode(dict):
    """Stands in for yacs.config.CfgNode, a dict with attributes."""

    __module__ = "yacs.config"

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({key: CfgNode(value) if isinstance(value, dict) else value for key, value in values.items()})
        self.__dict__["__immutable__"] = True


_CONFIG = {"MODEL": {"TYPE": "revcol_tiny", "NUM_CLASSES": 1000, "DROP_PATH_RATE": 0.1},
           "DATA": {"IMG_SIZE": 224, "CROP": [0.08, 1.0]}, "TRAIN": {"EPOCHS": 300, "AMP": True}}  # fmt: skip


def classifier(state: Mapping[str, Tensor], average: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """What the published classification training writes; the built-in function is there by mistake."""
    moments = {"step": torch.tensor(5.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    groups = [{"lr": 1e-3, "lr_scale": 1.0, "betas": (0.9, 0.999), "weight_decay": 0.05, "params": [0]}]
    return {
        "model": dict(state), "optimizer": {"state": {0: moments}, "param_groups": groups}, "max_accuracy": 82.2,
        "epoch": 299, "state_dict_ema": None if average is None else dict(average), "input": input,
        "config": CfgNode(_CONFIG),
    }  # fmt: skip


def detector(backbone: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a published detector is, its backbone among neck and heads."""
    others = {"neck.lateral_convs.0.conv.weight": torch.ones(4, 4, 1, 1), "rpn_head.rpn_cls.bias": torch.ones(3),
              "roi_head.bbox_head.0.fc_cls.weight": torch.ones(2, 4)}  # fmt: skip
    state = {f"backbone.{key}": value for key, value in backbone.items()} | others
    return {"meta": {"epoch": 36, "config": "model = dict()", "CLASSES": ("cat", "dog")}, "state_dict": state}


def write(path: Path, content: object, *, legacy: bool = False) -> Path:
    """Save as the repositories do; ``legacy`` as torch before 1.6 did."""
    return official.write(path, content, legacy=legacy, classes=(CfgNode,))  # type: ignore[arg-type]
