"""`cloverleaf data check`: every fault of a dataset that would hurt training, with file and line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloverleaf.data.check_boxes import check_objects
from cloverleaf.data.check_images import MAX_NEAR, ImageFacts, identical, inspect_all, nearly_identical
from cloverleaf.data.check_report import CheckReport, Finding, SplitCount, finding
from cloverleaf.data.readers.detect import find_splits
from cloverleaf.data.records import Fault, Header, ImageRecord, Location, SplitReader
from cloverleaf.data.source import open_split
from cloverleaf.errors import DataError


@dataclass(slots=True)
class _Seen:
    """An image of a split, as much of it as the later checks need."""

    path: Path
    size_hw: tuple[int, int] | None
    location: Location
    reader: SplitReader


@dataclass(slots=True)
class _Check:
    """Findings so far."""

    findings: list[Finding] = field(default_factory=list)
    images: list[_Seen] = field(default_factory=list)
    splits: dict[str, SplitCount] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    labels: dict[str, Counter[int]] = field(default_factory=dict)

    def add(self, fault: Fault, reader: SplitReader) -> None:
        location = reader.with_line(fault.location)
        self.findings.append(finding(fault.code, fault.severity, fault.message, location, reader.split))


def check_dataset(source: str | Path, splits: Sequence[str] | None = None, *, workers: int = -1) -> CheckReport:
    """Look at every label and every image of a dataset.

    Args:
        source: a `data.yaml`, a COCO JSON or a folder.
        splits: names of the splits; all of them by default.
        workers: threads that decode images; -1 uses the CPUs at hand.

    Raises:
        DataError: the source is not a dataset, or has no such split.
    """
    readers = [open_split(source, split) for split in splits] if splits else list(find_splits(Path(source)).values())
    state = _Check()
    for reader in readers:
        _check_labels(reader, state)
    _check_classes(state, readers)
    facts = _check_images(state, workers)
    _check_copies(state, facts)
    names = next(iter(state.headers.values())).names if state.headers else ()
    return CheckReport(str(source), names, state.splits, tuple(state.findings))


def _check_labels(reader: SplitReader, state: _Check) -> None:
    """Read a split; faults that the reader reports, then those of the boxes."""
    images = objects = 0
    labels: Counter[int] = Counter()
    try:
        opened = reader.open(lambda fault: state.add(fault, reader))
        for record in opened.images:
            images += 1
            objects += len(record.objects)
            labels.update(found.label for found in record.objects)
            _check_record(record, opened.header, reader, state)
    except DataError as error:
        file, what, line = getattr(reader, "annotations", reader.root), error.what, None
        if found := re.match(rf"{re.escape(str(file))}(?::(\d+):)? ", what):  # the table names the place beside it
            what, line = what[found.end() :], int(found[1]) if found[1] else None
        message = f"{what}{': ' + error.why if error.why else ''}"
        state.add(Fault("broken-file", message, Location(file, line)), reader)
    else:
        state.headers[reader.split] = opened.header
        state.labels[reader.split] = labels
    state.splits[reader.split] = SplitCount(reader.format, images, objects)


def _check_record(record: ImageRecord, header: Header, reader: SplitReader, state: _Check) -> None:
    state.images.append(_Seen(record.path, record.size_hw, record.location, reader))
    if record.size_hw is not None or reader.format != "yolo":  # fractions of an unknown size say nothing
        for fault in check_objects(record, record.size_hw, header.names):
            named = f"{record.path.name}: " if reader.format == "coco" else ""  # one file has the labels of all images
            state.add(replace(fault, message=named + fault.message), reader)
    if not record.objects:
        where = Location(record.path)
        state.add(Fault("image-without-objects", "no objects: trains as background", where, severity="note"), reader)


def _check_classes(state: _Check, readers: list[SplitReader]) -> None:
    """Splits must agree on the classes; a class without examples cannot be learned."""
    by_split = {reader.split: reader for reader in readers}
    first = next(iter(state.headers), None)
    if first is None:
        return
    for split, header in state.headers.items():
        reader = by_split[split]
        where = Location(getattr(reader, "annotations", reader.root))
        if (header.names, header.category_ids) != (state.headers[first].names, state.headers[first].category_ids):
            message = (
                f"classes {list(header.names)[:8]} differ from those of {first}: {list(state.headers[first].names)[:8]}"
            )
            state.add(Fault("classes-differ", message, where), reader)
        unused = [name for label, name in enumerate(header.names) if not state.labels[split][label]]
        if unused and split == "train":
            shown = ", ".join(unused[:8]) + (", ..." if len(unused) > 8 else "")
            state.add(Fault("class-without-objects", f"no object of {shown}", where, severity="warning"), reader)


def _check_images(state: _Check, workers: int) -> list[ImageFacts]:
    """Decode every file once and compare its size with the labels."""
    facts_of: dict[Path, ImageFacts] = {}
    unique = list(dict.fromkeys(seen.path for seen in state.images))
    for facts in inspect_all(unique, workers):
        facts_of[facts.path] = facts
    for seen in state.images:
        facts = facts_of[seen.path]
        for fault in facts.faults:
            if fault.code == "image-missing":
                state.add(
                    Fault(fault.code, f"{seen.path.name}: {fault.message} ({seen.path})", seen.location), seen.reader
                )
            else:
                state.add(fault, seen.reader)
        if facts.size_hw is not None and seen.size_hw is not None and facts.size_hw != seen.size_hw:
            state.add(Fault("image-size-differs", _size_message(seen, facts.size_hw), seen.location), seen.reader)
    return [facts_of[seen.path] for seen in state.images]


def _size_message(seen: _Seen, actual: tuple[int, int]) -> str:
    assert seen.size_hw is not None
    said = f"{seen.size_hw[1]} x {seen.size_hw[0]}"
    turned = " (turned by its EXIF orientation)" if actual == seen.size_hw[::-1] else ""
    return f"{seen.path.name} is {actual[1]} x {actual[0]}{turned}, the label file says {said}"


def _check_copies(state: _Check, facts: list[ImageFacts]) -> None:
    """The same picture twice: across splits it makes the judgement worthless, within one it is only waste."""
    images = state.images
    for group in identical(facts):
        for position in group[1:]:
            other = next((k for k in group if images[k].reader.split != images[position].reader.split), group[0])
            _add_copy(state, position, other, "identical to", exact=True)
    for first, second, correlation in nearly_identical(facts):
        _add_copy(state, second, first, f"nearly identical (correlation {correlation:.3f}) to", exact=False)
    if len(facts) > MAX_NEAR:
        message = f"more than {MAX_NEAR:,} images: only identical files were looked for, not similar ones"
        where = Location(images[0].reader.root)
        state.add(Fault("check-incomplete", message, where, severity="note"), images[0].reader)


def _add_copy(state: _Check, position: int, other: int, text: str, *, exact: bool) -> None:
    one, two = state.images[position], state.images[other]
    across = one.reader.split != two.reader.split
    code = ("image-copy" if exact else "image-near-copy") + ("-other-split" if across else "")
    message = f"{one.reader.split}: {text} {two.path.name} in {two.reader.split}"
    severity = ("error" if across else "warning") if exact else ("warning" if across else "note")
    state.add(Fault(code, message, Location(one.path), severity=severity), one.reader)  # type: ignore[arg-type]
