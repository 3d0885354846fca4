"""Where the modules of Gold-YOLO stand among its published names, in the published order."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass

from cloverleaf.backbones.efficient_rep import CspBepSpec, EfficientRepSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.layers.rep_block import BlockKind, Body
from cloverleaf.layers.style import Style
from cloverleaf.necks.gather_distribute.neck import GatherDistributeSpec
from cloverleaf.necks.gather_distribute.transformer import PLAIN

_LEAVES = ("alpha", "weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the tensors of one kind of module are called.

    Attributes:
        parts: our beginning and the published one, in the published order.
        kept_eps: epsilon of its BatchNorm if the published deploy form keeps that, else None.
    """

    parts: tuple[tuple[str, str], ...]
    kept_eps: float | None = None


_CONV = (("conv.", "conv."), ("norm.", "bn."))
CONV = Kind(_CONV)
KEPT_CONV = Kind(_CONV, Style().norm_eps)
SYNCED_CONV = Kind(_CONV, PLAIN.norm_eps)
TOKEN_CONV = Kind((("conv.", "c."), ("norm.", "bn.")), PLAIN.norm_eps)
BARE = Kind((("", ""),))
BLOCKS: dict[BlockKind, Kind] = {
    "conv": Kind((("conv.", "block.conv."), ("norm.", "block.bn."))),
    "rep": Kind(
        (
            ("identity_norm.", "rbr_identity."),
            ("dense.", "rbr_dense.conv."), ("dense_norm.", "rbr_dense.bn."),
            ("point.", "rbr_1x1.conv."), ("point_norm.", "rbr_1x1.bn."),
            ("conv.", "rbr_reparam."),
        )
    ),
}  # fmt: skip
_PYRAMIDS = {
    "csp-sppf": ("reduce.0", "bypass", "reduce.1", "reduce.2", "mix.0", "mix.1", "merge"),
    "sppf": ("reduce", "mix"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A module of ours and where it stands.

    Attributes:
        ours: path of the module.
        theirs: published path.
        kind: of the module.
    """

    ours: str
    theirs: str
    kind: Kind = CONV

    def names(self, keys: Container[str]) -> Iterator[tuple[str, str]]:
        """Our key and the published one, for those of its tensors that are among ``keys``."""
        for ours, theirs in self.kind.parts:
            for leaf in _LEAVES:
                key = f"{self.ours}.{ours}{leaf}"
                if key in keys:
                    yield key, f"{self.theirs}.{theirs}{leaf}"


def backbone(spec: EfficientRepSpec | CspBepSpec, keys: Collection[str]) -> Iterator[Place]:
    """The stem and the stages 2 to 5, which have strides 4 to 32; as long as our ``keys`` say."""
    form: Body = "csp" if isinstance(spec, CspBepSpec) else "chain"
    yield Place("backbone.stem", "backbone.stem", BLOCKS[spec.block])
    for i in range(4):
        ours, theirs = f"backbone.stage{4 << i}", f"backbone.ERBlock_{i + 2}"
        yield Place(f"{ours}.0", f"{theirs}.0", BLOCKS[spec.block])
        yield from _body(f"{ours}.1", f"{theirs}.1", form, spec.block, keys)
    for i, part in enumerate(_PYRAMIDS[spec.pool], 1):
        yield Place(f"backbone.stage32.2.{part}", f"backbone.ERBlock_5.2.cv{i}")


def neck(spec: GatherDistributeSpec, keys: Collection[str]) -> Iterator[Place]:
    """The low stage from p4 to p3, then the high stage from n4 to n5."""
    yield Place("neck.low_ifm.enter", "neck.low_IFM.0", KEPT_CONV)
    for i in range(spec.low_depth):
        yield Place(f"neck.low_ifm.blocks.{i}", f"neck.low_IFM.{i + 1}", BLOCKS[spec.block])
    yield Place("neck.low_ifm.leave", f"neck.low_IFM.{spec.low_depth + 1}", KEPT_CONV)
    for i, level, narrowed in ((1, "p4", "c5"), (0, "p3", "p4")):
        yield Place(f"neck.narrow.{i}", f"neck.reduce_layer_{narrowed}")
        yield Place(f"neck.low_laf.{i}.reduce", f"neck.LAF_{level}.cv1")
        yield Place(f"neck.low_laf.{i}.mix", f"neck.LAF_{level}.cv_fuse")
        yield from _inject(f"neck.low_inject.{i}", level)
        yield from _body(f"neck.low_blocks.{i}", f"neck.Rep_{level}", spec.body, spec.block, keys)
    for i in range(spec.high_depth):
        yield from _transformer(i)
    yield Place("neck.high_ifm.leave", "neck.conv_1x1_n", BARE)
    for i, level in enumerate(("n4", "n5")):
        yield from _inject(f"neck.high_inject.{i}", level)
        yield from _body(f"neck.high_blocks.{i}", f"neck.Rep_{level}", spec.body, spec.block, keys)


def head(spec: DenseHeadSpec, levels: int = 3) -> Iterator[Place]:
    """All levels of each module in turn; with an anchor branch the anchor-free one has other names."""
    free = "_af" if spec.aided else ""
    parts = [("stem", "stems", CONV), ("class_conv", "cls_convs", CONV), ("box_conv", "reg_convs", CONV)]
    parts += [("classes", f"cls_preds{free}", BARE), ("distances", f"reg_preds{free}", BARE)]
    parts += [("direct", "reg_preds_lrtb", BARE)] if spec.direct else []
    parts += [("aided_classes", "cls_preds_ab", BARE), ("aided_boxes", "reg_preds_ab", BARE)] if spec.aided else []
    for ours, theirs, kind in parts:
        for i in range(levels):
            yield Place(f"head.levels.{i}.{ours}", f"detect.{theirs}.{i}", kind)


def _body(ours: str, theirs: str, form: Body, block: BlockKind, keys: Collection[str]) -> Iterator[Place]:
    """The first of a chain has a name of its own."""
    if form == "csp":
        for part, name in (("main", "cv1"), ("bypass", "cv2"), ("merge", "cv3")):
            yield Place(f"{ours}.{part}", f"{theirs}.{name}")
        ours, theirs = f"{ours}.blocks", f"{theirs}.m"
    for i in range(len({key.removeprefix(f"{ours}.").partition(".")[0] for key in keys if key.startswith(f"{ours}.")})):
        link, place = f"{ours}.{i}", f"{theirs}.block.{i - 1}" if i else f"{theirs}.conv1"
        if form == "chain":
            yield Place(link, place, BLOCKS[block])
            continue
        yield Place(link, place, BARE)  # its factor alpha
        yield Place(f"{link}.first", f"{place}.conv1", BLOCKS[block])
        yield Place(f"{link}.second", f"{place}.conv2", BLOCKS[block])


def _inject(ours: str, level: str) -> Iterator[Place]:
    for part in ("local_embedding", "global_embedding", "global_act"):
        yield Place(f"{ours}.{part}", f"neck.Inject_{level}.{part}", SYNCED_CONV)


def _transformer(i: int) -> Iterator[Place]:
    ours, theirs = "neck.high_ifm.transformer", f"neck.high_IFM.transformer_blocks.{i}"
    for part, name in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("project", "proj.1")):
        yield Place(f"{ours}.attention.{i}.{part}", f"{theirs}.attn.{name}", TOKEN_CONV)
    for part, name, kind in (("enter", "fc1", TOKEN_CONV), ("depthwise", "dwconv", BARE), ("leave", "fc2", TOKEN_CONV)):
        yield Place(f"{ours}.mlp.{i}.{part}", f"{theirs}.mlp.{name}", kind)
