"""What was learned as implicit knowledge (arXiv 2105.04206), what it means in pixels, and what it does to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cloverleaf.heads.anchor_based import AnchorHead
from cloverleaf.inspection.alignment import facts_of, record
from cloverleaf.inspection.alignment_pictures import plot_alignment
from cloverleaf.inspection.boxes_at_rest import BoxesAtRest, Correlation, boxes_at_rest, mirrored_anchors, plain
from cloverleaf.inspection.finding import Finding, Table
from cloverleaf.inspection.implicit_pictures import plot_boxes_at_rest, plot_outputs, plot_parts, plot_vectors
from cloverleaf.inspection.knowledge import Knowledge, by_place, find_knowledge, is_implicit
from cloverleaf.inspection.output_names import OutputNames, box_head, of_boxes, output_names
from cloverleaf.inspection.subject import InspectOptions, Subject
from cloverleaf.layers.implicit import START_STD

BOXES = "implicit_boxes.png"
_FEW = 1024  # values that are written to the JSON file


def refusal(subject: Subject, options: InspectOptions) -> str | None:
    """It applies to models with implicit knowledge that is not folded yet."""
    if any(is_implicit(module) for module in subject.model.modules()):
        return None
    if subject.model.spec.fused:
        return (
            f"{subject.name} is fused: implicit knowledge, if it had any, is folded into its convolutions; "
            "inspect the weights as they were trained"
        )
    return (
        f"{subject.name} has no implicit knowledge; give its head or neck some with the option implicit and train it, "
        "or, if this is a deployed model, whose knowledge is folded, inspect the weights as they were trained"
    )


def run(subject: Subject, options: InspectOptions, folder: Path, say: Callable[[str], None]) -> Finding:
    """Draw every place's vectors; of an anchor head what they mean in pixels; with images what they do to features."""
    found = find_knowledge(subject.model)
    findings = [_learned(subject, place, members, folder) for place, members in by_place(found)]
    if isinstance(box_head(subject.model), AnchorHead) and any(of_boxes(subject.model, one) for one in found):
        findings.append(_in_pixels(subject, found, folder))
    if subject.sources:
        findings += [_aligned(subject, place, members, folder, say) for place, members in by_place(found)]
    else:
        findings.append(Finding(("Without --images nothing is said about the features that pass.",), {}))
    facts: dict[str, Any] = {}
    for one in findings:
        for key, value in one.facts.items():
            facts.setdefault(key, {}).update(value)
    return Finding(
        tuple(note for one in findings for note in one.notes), facts,
        tuple(table for one in findings for table in one.tables),
        tuple(picture for one in findings for picture in one.pictures),
    )  # fmt: skip


def _learned(subject: Subject, place: str, members: Sequence[Knowledge], folder: Path) -> Finding:
    """What one place has learned."""
    first = members[0]
    named = _named(subject, members)
    head = f"{subject.name}: {place}, {first.operator} ({first.modelling})"
    path = folder / f"implicit_{place.replace('.', '_')}.png"
    pictures = [path]
    if named:
        plot_outputs(named, path, title=head)
    elif first.operator == "inner":
        plot_parts(members, path, title=head)
    else:
        plot_vectors(members, path, title=head)
    if first.parts and first.operator != "inner":
        pictures.append(path.with_name(f"{path.stem}_parts.png"))
        plot_parts(members, pictures[-1], title=f"{head}: what it is made of")
    rows = tuple(
        (one.label, f"{one.learned.size:,}", f"{one.learned.mean():.4f}", f"{one.learned.std():.4f}",
         f"{one.learned.min():.3f} to {one.learned.max():.3f}")
        for one in members
    )  # fmt: skip
    start = "" if first.start is None else f", start {first.start:g} ± {START_STD}"
    tables = [Table(f"{place} ({first.operator}{start})", ("", "values", "mean", "std.", "range"), rows)]
    if named and named[0][1].anchors_px is not None:
        tables.append(_by_output(place, named))
    names = {one.path: of_module for one, of_module in named}
    facts = {"operator": first.operator, "modelling": first.modelling,
             "start": None if first.start is None else {"mean": first.start, "std": START_STD},
             "modules": [_facts(one, names.get(one.path)) for one in members]}  # fmt: skip
    return Finding((), {"places": {place: facts}}, tuple(tables), tuple(pictures))


def _named(subject: Subject, members: Sequence[Knowledge]) -> list[tuple[Knowledge, OutputNames]]:
    """With the names of the outputs that they refine; nothing where they refine none."""
    return [(one, names) for one in members if (names := output_names(subject.model, one)) is not None]


def _by_output(place: str, named: Sequence[tuple[Knowledge, OutputNames]]) -> Table:
    """Means over the anchors, and the spread over them, of each kind of output that it acts on."""
    grids = [one.values.reshape(len(names.rows), -1) for one, names in named]
    kinds = {kind: list(k) for kind, k in named[0][1].kinds.items() if np.isfinite(grids[0][:, k]).all()}
    rows = [
        (one.label, *(f"{values[:, k].mean():.3f} ± {values[:, k].std():.3f}" for k in kinds.values()))
        for (one, _), values in zip(named, grids, strict=True)
    ]
    return Table(f"{place}: mean ± std. over anchors and classes", ("", *kinds), tuple(rows))


def _facts(one: Knowledge, names: OutputNames | None) -> dict[str, Any]:
    values = one.learned
    return {
        "path": one.path, "label": one.label, "stride": one.stride, "count": values.size,
        "mean": float(values.mean()), "std": float(values.std()),
        "min": float(values.min()), "max": float(values.max()), "norm": float(np.linalg.norm(values)),
        "parts": {name: list(part.shape) for name, part in one.parts.items()},
        **({"rows": list(names.rows), "columns": list(names.columns)} if names else {}),
        **({"values": [None if v != v else round(v, 6) for v in one.values.ravel().tolist()]}
           if one.values.size <= _FEW else {}),
    }  # fmt: skip


def _in_pixels(subject: Subject, found: Sequence[Knowledge], folder: Path) -> Finding:
    """Boxes of an anchor head where features are zero, and whether factors follow the anchors."""
    levels = boxes_at_rest(box_head(subject.model))
    plot_boxes_at_rest(levels, folder / BOXES, title=f"{subject.name}: boxes where features are zero")
    rows = [_box_row(level, k) for level in levels for k in range(len(level.anchors_px))]
    mirrored = {}
    for place, members in by_place(found):
        if members[0].operator == "multiply" and (named := _named(subject, members)):
            grids = [one.values.reshape(len(names.rows), -1) for one, names in named]
            mirrored[place] = mirrored_anchors(grids, [names for _, names in named])
    notes = ["Boxes where features are zero: what the last convolution says by its bias, and with implicit knowledge."]
    notes += [_said(place, one) for place, of_place in mirrored.items() for one in of_place]
    return Finding(
        tuple(notes),
        {"boxes_at_rest": {"levels": [plain(one) for one in levels]},
         "mirrored_anchors": {place: [asdict(one) for one in of_place] for place, of_place in mirrored.items()}},
        (Table("boxes where features are zero, in px",
               ("level, anchor", "alone", "with implicit", "centre moves by", "side factors"), tuple(rows)),),
        (folder / BOXES,),
    )  # fmt: skip


def _box_row(level: BoxesAtRest, k: int) -> tuple[str, ...]:
    anchor, alone, together = level.anchors_px[k], level.alone[k], level.together[k]
    moved, grown = together[:2] - alone[:2], together[2:] / alone[2:]
    return (
        f"stride {level.stride}, {anchor[0]:g} x {anchor[1]:g}",
        f"{alone[2]:.1f} x {alone[3]:.1f}", f"{together[2]:.1f} x {together[3]:.1f}",
        f"{moved[0]:+.2f}, {moved[1]:+.2f}", f"{grown[0]:.3f}, {grown[1]:.3f}",
    )  # fmt: skip


def _said(place: str, one: Correlation) -> str:
    verdict = "more than chance gives" if one.p < 0.05 else "no more than chance gives"
    return f"{place}, {one.of}: rank correlation {one.rho:+.2f} over {one.anchors} anchors (p {one.p:.2f}), {verdict}."


def _aligned(
    subject: Subject, place: str, members: Sequence[Knowledge], folder: Path, say: Callable[[str], None]
) -> Finding:
    """What one place does to the features of the images."""
    say(f"implicit: features at {place}")
    passed = record(subject, members)
    kept = [one for one in members if one.path in passed]
    if not kept:
        return Finding((f"{place} is not reached by features of images.",), {})
    if not all(passed[one.path].finite for one in kept):
        return Finding((f"{place}: some features are not finite, so nothing is said about them.",), {})
    labels = [one.label for one in kept]
    values = [passed[one.path] for one in kept]
    facts = facts_of(labels, values)
    path = folder / f"implicit_{place.replace('.', '_')}_features.png"
    plot_alignment(labels, values, facts, path, title=f"{subject.name}: features before and after {place}")
    rows = [
        (
            f"{level['label']}, {side}",
            *(f"{level[side][key]:.3f}" for key in ("mean", "std", "norm", "centroid_norm")),
            "" if level[side]["effective_dimension"] is None else f"{level[side]['effective_dimension']:.1f}",
        )
        for level in facts["levels"] for side in ("before", "after")
    ]  # fmt: skip
    return Finding(
        tuple(_moved(place, members[0].operator, facts)), {"alignment": {place: facts}},
        (Table(f"features at {place}", ("", "mean", "std.", "norm", "centroid", "eff. dim."), tuple(rows)),),
        (path,) if path.is_file() else (),
    )  # fmt: skip


def _moved(place: str, operator: str, facts: dict[str, Any]) -> list[str]:
    """Sentences on what changes."""
    ways = [level["centroid_moves"] for level in facts["levels"] if level["centroid_moves"] is not None]
    notes = []
    if ways:
        least, most = f"{min(ways):.2f}", f"{max(ways):.2f}"
        reach = least if least == most else f"{least} to {most}"
        notes.append(f"{place}: centroids move by {reach} of the radius of their cloud.")
    if between := facts.get("between_levels"):
        before, after = (_mean_of_pairs(between[side]["kernel_alignment"]) for side in ("before", "after"))
        if not np.isnan([before, after]).any():
            notes.append(
                f"{place}: kernel alignment between levels {before:.3f} before, {after:.3f} after (mean of pairs)."
            )
    if operator == "add":
        notes.append(f"{place}: an addition moves clouds; their std., effective dimension and CKA cannot change.")
    return notes


def _mean_of_pairs(matrix: Sequence[Sequence[float | None]]) -> float:
    """NaN where it is defined for no pair, as of maps without features."""
    values = np.array(matrix, dtype=float)
    pairs = values[~np.eye(len(values), dtype=bool)]
    return float(np.nanmean(pairs)) if np.isfinite(pairs).any() else float("nan")
