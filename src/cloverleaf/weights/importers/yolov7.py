"""Published names of the YOLOv7 family (layer tables of the published implementation)."""

from __future__ import annotations

from cloverleaf.weights.importers.names import NameTable, elan_rows

TINY = NameTable(
    rows={
        "backbone.stem.0": 0,
        "backbone.stem.1": 1,
        **elan_rows(2, "backbone.stage4", 2),
        **elan_rows(9, "backbone.stage8.1", 2),
        **elan_rows(16, "backbone.stage16.1", 2),
        **elan_rows(23, "backbone.stage32.1", 2),
        "neck.spp.bypass": 29,
        "neck.spp.reduce": 30,
        "neck.spp.mix": 35,
        "neck.spp.merge": 37,
        "neck.narrow.1": 38,
        "neck.lateral.1": 40,
        **elan_rows(42, "neck.down_merge.1", 2),
        "neck.narrow.0": 48,
        "neck.lateral.0": 50,
        **elan_rows(52, "neck.down_merge.0", 2),
        "neck.reduce.0": 58,
        **elan_rows(60, "neck.up_merge.0", 2),
        "neck.reduce.1": 66,
        **elan_rows(68, "neck.up_merge.1", 2),
        "head.levels.0.stem": 74,
        "head.levels.1.stem": 75,
        "head.levels.2.stem": 76,
    },
    head_row=77,
)

TABLES = {"yolov7-tiny": TINY, "yolov7-tiny-silu": TINY}
