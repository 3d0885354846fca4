"""Writes checkpoint files of the structure in which Gold-YOLO is released: pickled modules of three packages.

The classes are made up (see `official_files`): what they are called in the release is unknown here and must not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import official_files as official

_NAMES = {
    "yolov6.models.yolo": ("Model",),
    "yolov6.models.heads": ("Detect",),
    "yolov6.layers.common": ("Conv", "RepBlock", "Block", "Fusion"),
    "yolov6.models.efficientrep": ("Backbone",),
    "gold_yolo.reppan": ("Neck",),
    "gold_yolo.transformer": ("Transformer", "Attention", "Mlp", "ConvNorm"),
    "gold_yolo.layers": ("Inject",),
    "mmcv.cnn.bricks.conv_module": ("ConvModule",),
}
_CLASSES: dict[str, type[nn.Module]] = {
    name: type(name, (nn.Module,), {"__module__": module, "__doc__": f"Stands in for a class of {module}."})
    for module, names in _NAMES.items()
    for name in names
}
_BY_CHILD = (
    ("ERBlock_2", "Backbone"), ("low_IFM", "Neck"), ("proj_conv", "Detect"), ("transformer_blocks", "Transformer"),
    ("to_q", "Attention"), ("dwconv", "Mlp"), ("attn", "Transformer"), ("c", "ConvNorm"), ("global_act", "Inject"),
    ("rbr_dense", "RepBlock"), ("rbr_reparam", "RepBlock"), ("cv_fuse", "Fusion"), ("conv", "Conv"),
)  # fmt: skip


def official_model(state: Mapping[str, Tensor], *, half: bool = True, names: list[str] | None = None) -> nn.Module:
    """A module tree whose state dict is ``state``, with attributes of every kind that modules have."""
    tree: dict[str, Any] = {}
    for key, value in state.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    model = _CLASSES["Model"]()
    for name, parts in tree.items():
        model.add_module(name, _module(name, parts, synced=False))
    model.stride = torch.tensor([8.0, 16.0, 32.0])
    model.detect.nl, model.detect.grid, model.detect.anchors = 3, [torch.zeros(1)] * 3, 1
    model.neck.pool, model.neck.trans_channels = torch.nn.functional.adaptive_avg_pool2d, [64, 32, 64, 128]
    if names is not None:
        model.names = names
    return model.half() if half else model


def released(model: nn.Module) -> dict[str, Any]:
    """A finished run: the average has become the model, and the number of the last epoch has stayed."""
    return {"model": model, "optimizer": None, "ema": None, "updates": None, "epoch": 299}


def running(model: nn.Module, ema: nn.Module) -> dict[str, Any]:
    """An unfinished run."""
    return {**official.running(model, ema), "epoch": 37}


def write(path: Path, content: object, *, legacy: bool = False) -> Path:
    """Save as the repository does; ``legacy`` as torch before 1.6 did."""
    return official.write(path, content, legacy=legacy, classes=_CLASSES.values())


def _module(name: str, parts: dict[str, Any], synced: bool) -> nn.Module:
    """Norms are synchronised below Inject and the transformer."""
    synced = synced or name.startswith(("Inject_", "high_IFM"))
    if "running_mean" in parts:
        kind = nn.SyncBatchNorm if synced else nn.BatchNorm2d
        return official.filled(kind(len(parts["weight"]), device="meta"), parts)
    if "weight" in parts and parts["weight"].ndim == 4:
        out, width, kernel, _ = parts["weight"].shape
        conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, bias="bias" in parts, device="meta")
        return official.filled(conv, parts)
    if all(key.isdigit() for key in parts):
        children = {int(key): _module(key, part, synced) for key, part in parts.items()}
        every = (children.get(i, nn.ReLU6()) for i in range(max(children) + 1))
        return nn.ModuleList(every) if name.endswith(("s", "preds_af", "preds_ab", "lrtb")) else nn.Sequential(*every)
    module_of = next((kind for child, kind in _BY_CHILD if child in parts), "Block")
    module = _CLASSES["ConvModule" if synced and module_of == "Conv" else module_of]()
    for key, part in parts.items():
        if isinstance(part, dict):
            module.add_module(key, _module(key, part, synced))
        else:
            module.register_parameter(key, nn.Parameter(part, requires_grad=False))
    if module_of == "RepBlock" and "rbr_identity" not in parts:
        module.rbr_identity = None
    if module_of in ("Conv", "RepBlock", "ConvNorm"):
        module.act, module.norm_cfg = nn.SiLU() if name.isdigit() else nn.ReLU(), {"type": "SyncBN"}
    return module
