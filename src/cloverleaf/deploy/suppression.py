"""Non-maximum suppression as a part of an ONNX graph, right for any number of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloverleaf.deploy.extras import require
from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from onnx import ModelProto

DENSE_OUTPUTS = ("dense_boxes", "dense_scores")
MAX_CANDIDATES = 30000


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """The thresholds of a suppression that is part of a file; meaning as in `ops.nms.batched_nms`.

    Attributes:
        confidence: a box needs a score above it, in [0, 1).
        iou: a box goes when its IoU with a better one of its class is above it, in (0, 1].
        max_detections: D, detections per image.
    """

    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1:
            raise ConfigError(f"confidence {self.confidence} is out of range", "wanted 0 <= confidence < 1", "try 0.25")
        if not 0 < self.iou <= 1:
            raise ConfigError(f"iou {self.iou} is out of range", "wanted 0 < iou <= 1", "try 0.45")
        if not 1 <= self.max_detections <= MAX_CANDIDATES:
            wanted = f"wanted 1 <= max_detections <= {MAX_CANDIDATES}"
            raise ConfigError(f"max_detections {self.max_detections} is out of range", wanted, "try 300")


# Every prediction stands for its best class alone, so NonMaxSuppression, which works image by image and class by class,
# sees none twice, and its answer can be written back over the predictions. They enter by descending score, equal ones
# in their order, as TopK promises. What is dropped scores -1. D rows of padding let TopK find D whatever there is.
_NODES = """
{
  best = ReduceMax <keepdims = 0> (dense_scores, axis2)
  label = ArgMax <axis = 2, keepdims = 0> (dense_scores)
  magnitude = Abs (dense_boxes)
  box_sum = ReduceSum <keepdims = 0> (magnitude, axis2)
  score_sum = ReduceSum <keepdims = 0> (dense_scores, axis2)
  sum = Add (box_sum, score_sum)
  finite = Less (sum, huge)
  confident = Greater (best, confidence)
  low = Slice (dense_boxes, first, third, axis2)
  high = Slice (dense_boxes, third, fifth, axis2)
  sides = Sub (high, low)
  shortest = ReduceMin <keepdims = 0> (sides, axis2)
  proper = Greater (shortest, zero)
  sound = And (finite, proper)
  candidate = And (confident, sound)
  score = Where (candidate, best, dropped)

  candidate_one = Cast <to = 7> (candidate)
  candidates = ReduceSum <keepdims = 0> (candidate_one, axis1)
  highest = ReduceMax <keepdims = 1> (candidates, axis0)
  limited = Min (highest, most)
  rows = Max (limited, d)
  padded_score = Pad (score, padding, dropped, axis1)
  padded_label = Pad (label, padding, unknown, axis1)
  padded_box = Pad (dense_boxes, padding, zero, axis1)
  row_score, order = TopK <axis = 1> (padded_score, rows)
  row_label = GatherElements <axis = 1> (padded_label, order)
  order_index = Unsqueeze (order, axis2)
  row_box = GatherND <batch_dims = 1> (padded_box, order_index)

  every_class = Range (start, stop, step)
  every_class_column = Unsqueeze (every_class, axis1)
  label_row = Unsqueeze (row_label, axis1)
  score_row = Unsqueeze (row_score, axis1)
  is_class = Equal (label_row, every_class_column)
  class_score = Where (is_class, score_row, dropped)
  kept = NonMaxSuppression (row_box, class_score, d, iou, no_threshold)

  kept_at = Gather <axis = 1> (kept, axes02)
  kept_score = GatherND (row_score, kept_at)
  row_shape = Shape (row_score)
  nothing = Expand (dropped, row_shape)
  survivor_score = ScatterND (nothing, kept_at, kept_score)
  top, position = TopK <axis = 1> (survivor_score, d)
  found = Greater (top, zero)
  position_index = Unsqueeze (position, axis2)
  top_box = GatherND <batch_dims = 1> (row_box, position_index)
  top_label = GatherElements <axis = 1> (row_label, position)
  found_column = Unsqueeze (found, axis2)
  boxes = Where (found_column, top_box, zero)
  scores = Where (found, top, zero)
  labels = Where (found, top_label, unknown)
  found_one = Cast <to = 7> (found)
  count = ReduceSum <keepdims = 0> (found_one, axis1)
}
"""


def suppression_graph(
    suppression: Suppression, num_classes: int, *, ir_version: int, opset: int, max_candidates: int = MAX_CANDIDATES
) -> ModelProto:
    """A model that does what `ops.nms.batched_nms` does with one label per box, for every image of a batch.

    Inputs are ``dense_boxes (B, N, 4)`` xyxy and ``dense_scores (B, N, K)``, outputs ``boxes (B, D, 4)``,
    ``scores (B, D)``, ``labels (B, D)`` int64 and ``count (B,)`` int64: by descending score, filled up to D with zeros
    and the label -1.

    Args:
        suppression: thresholds and D.
        num_classes: K.
        ir_version, opset: of the file that it shall become a part of.
        max_candidates: only so many best boxes of an image compete, at least D.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    require("onnx")
    from onnx import parser

    d, classes = suppression.max_detections, num_classes
    constants = {
        "float confidence": format(suppression.confidence, ".9g"),
        "float[1] iou": format(suppression.iou, ".9g"),
        "float[1] no_threshold": 0,
        "float zero": 0,
        "float dropped": -1,
        "float huge": 3e38,
        "int64 unknown": -1,
        "int64[1] most": max_candidates,
        "int64[1] d": d,
        "int64[2] padding": f"0, {d}",
        "int64 start": 0,
        "int64 stop": classes,
        "int64 step": 1,
        "int64[1] axis0": 0,
        "int64[1] axis1": 1,
        "int64[1] axis2": 2,
        "int64[2] axes02": "0, 2",
        "int64[1] first": 0,
        "int64[1] third": 2,
        "int64[1] fifth": 4,
    }
    header = f"""
        <ir_version: {ir_version}, opset_import: ["": {opset}]>
        suppression (float[batch, predictions, 4] dense_boxes, float[batch, predictions, {classes}] dense_scores)
        => (float[batch, {d}, 4] boxes, float[batch, {d}] scores, int64[batch, {d}] labels, int64[batch] count)
        <{", ".join(f"{name} = {{{value}}}" for name, value in constants.items())}>
    """
    return parser.parse_model(header + _NODES)


def with_suppression(dense: ModelProto, suppression: Suppression, num_classes: int) -> ModelProto:
    """A copy of a model with the outputs `DENSE_OUTPUTS`, and perhaps others, that has `suppression_graph` in their
    place."""
    require("onnx")
    from onnx import compose

    opset = next(item.version for item in dense.opset_import if item.domain == "")
    tail = suppression_graph(suppression, num_classes, ir_version=dense.ir_version, opset=opset)
    tail = compose.add_prefix(tail, "suppression/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(dense, tail, io_map=[(name, name) for name in DENSE_OUTPUTS])
    del merged.opset_import[:]
    merged.opset_import.extend(dense.opset_import)
    batch = dense.graph.output[0].type.tensor_type.shape.dim[0]
    own = {output.name for output in tail.graph.output}
    ordered = sorted(merged.graph.output, key=lambda output: output.name not in own)  # what else there is comes last
    outputs = [type(output).FromString(output.SerializeToString()) for output in ordered]
    del merged.graph.output[:]
    merged.graph.output.extend(outputs)
    for output in merged.graph.output:
        output.type.tensor_type.shape.dim[0].CopyFrom(batch)
    return merged
