"""Where COCO datasets keep their files."""

from __future__ import annotations

import os
from pathlib import Path

from cloverleaf.data.readers.coco import CocoSplit
from cloverleaf.data.readers.splits import in_order, split_in_name
from cloverleaf.data.records import SplitReader
from cloverleaf.errors import DataError

_ANNOTATION_FOLDERS = ("annotations", "Annotations", "labels")
_HEAD = 4096


def image_folders(annotations: Path, split: str, root: Path) -> tuple[Path, ...]:
    """Folders that may hold the images of a COCO file, those that exist, best first."""
    stem = annotations.stem.removeprefix("instances_")
    beside = annotations.parent
    tried = [
        *(base / "images" / name for base in (root, beside) for name in (split, stem)),
        *(base / "images" for base in (root, beside)),
        *(root / name for name in (split, stem, "valid" if split == "val" else split, "JPEGImages", "img", "data")),
        beside,
        root,
    ]
    return tuple(dict.fromkeys(folder for folder in tried if folder.is_dir()))


def coco_split(annotations: Path, split: str) -> CocoSplit:
    """A split from one file; its images are looked for around it."""
    beside = annotations.parent
    root = beside.parent if beside.name.lower() in ("annotations", "labels") else beside
    return CocoSplit(split, root, annotations, image_folders(annotations, split, root))


def coco_beside(annotations: Path) -> dict[str, SplitReader]:
    """The split of a JSON file, and the other splits whose files are named like it."""
    named = split_in_name(annotations.stem)
    if named is None:
        return {"train": coco_split(annotations, "train")}
    own, _, around = named
    splits: dict[str, SplitReader] = {own: coco_split(annotations, own)}
    for other in sorted(annotations.parent.glob("*.json")):
        found = split_in_name(other.stem)
        if found is not None and found[2] == around and found[0] not in splits:
            splits[found[0]] = coco_split(other, found[0])
    return {name: splits[name] for name in in_order(list(splits))}


def coco_in_folder(folder: Path) -> dict[str, SplitReader]:
    """Splits of a folder with `annotations/*.json`, `*.json` or `<split>/_annotations.coco.json`; empty if none."""
    for place in (*(folder / name for name in _ANNOTATION_FOLDERS), folder):
        files = [path for path in sorted(place.glob("*.json")) if _is_named(path) or looks_like_coco(path)]
        if files:
            return _by_split(files)
    exports = {}
    for path in sorted(folder.glob("*/_annotations.coco.json")):
        named = split_in_name(path.parent.name)
        name = named[0] if named else path.parent.name
        exports[name] = CocoSplit(name, path.parent, path, (path.parent,))
    return {name: exports[name] for name in in_order(list(exports))}


def _is_named(path: Path) -> bool:
    """`train.json` and the like: meant as a split, whatever is in it."""
    named = split_in_name(path.stem)
    return named is not None and named[1] == 0


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file begins like a COCO dataset (an object with one of its keys)."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if file.seek(0, os.SEEK_END) > _HEAD:
            file.seek(-_HEAD, os.SEEK_END)
            head += file.read()
    keys = (b'"images"', b'"annotations"', b'"categories"', b'"info"')
    return head.lstrip().startswith(b"{") and any(key in head for key in keys)


def _by_split(files: list[Path]) -> dict[str, SplitReader]:
    ranked: dict[str, list[tuple[int, Path]]] = {}
    for path in files:
        named = split_in_name(path.stem)
        if named is not None:
            ranked.setdefault(named[0], []).append((named[1], path))
    if not ranked:
        if len(files) == 1:
            return {"train": coco_split(files[0], "train")}
        raise DataError(
            what=f"{files[0].parent} holds several annotation files and none is named after a split",
            why=f"found {', '.join(path.name for path in files[:6])}",
            fix="rename them to train.json, val.json, test.json, or pass one of the files",
        )
    chosen = {}
    for split, candidates in ranked.items():
        best = min(rank for rank, _ in candidates)
        paths = [path for rank, path in candidates if rank == best]
        if len(paths) > 1:
            raise DataError(
                what=f"{paths[0].parent} holds several annotation files for split {split!r}",
                why=f"found {', '.join(path.name for path in paths)}",
                fix="pass the JSON file you mean, or keep one of them",
            )
        chosen[split] = coco_split(paths[0], split)
    return {name: chosen[name] for name in in_order(list(chosen))}
