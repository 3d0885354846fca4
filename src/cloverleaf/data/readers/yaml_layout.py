"""`data.yaml`: YOLO image folders or COCO JSON files per split, and the names of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cloverleaf.data.readers.coco import CocoSplit
from cloverleaf.data.readers.coco_layout import image_folders
from cloverleaf.data.readers.files import has_images, image_files
from cloverleaf.data.readers.splits import ALIASES, canonical_split, in_order
from cloverleaf.data.readers.yolo import YoloSplit, labels_folder
from cloverleaf.data.records import SplitReader
from cloverleaf.errors import DataError

_SPLIT_KEYS = {alias for aliases in ALIASES.values() for alias in aliases}


def splits_in_yaml(file: Path) -> dict[str, SplitReader]:
    """Splits that a YAML names; raises `DataError` with the line or key that is wrong."""
    content = load_yaml(file)
    root = _root(content, file)
    names = _names(content.get("names"), file)
    _check_count(content.get("nc"), names, file)
    splits: dict[str, SplitReader] = {}
    for key, value in content.items():
        if key in _SPLIT_KEYS and value:
            split = canonical_split(key)
            splits[split] = _split(split, key, value, content, root, names, file)
    if not splits:
        raise DataError(
            what=f"{file} names no split",
            why=f"it has the keys {', '.join(map(str, content)) or 'none'}",
            fix="add `train: images/train` and `val: images/val` (folders, lists of folders, .txt or COCO .json files)",
        )
    return {name: splits[name] for name in in_order(list(splits))}


def load_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping; raises `DataError` with the line."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        why = getattr(error, "problem", None) or str(error)
        raise DataError(what=f"{where}: not valid YAML", why=why, fix="correct the line") from error
    if not isinstance(content, dict):
        raise DataError(
            what=f"{file} is not a dataset description",
            why=f"its top level is a {type(content).__name__}, not a mapping",
            fix="write keys: path, train, val, names",
        )
    return content


def is_dataset_yaml(file: Path) -> bool:
    """Whether a YAML file names a train or val split."""
    try:
        content = load_yaml(file)
    except DataError:
        return file.stem in ("data", "dataset")  # the reader will say what is wrong with it
    return bool(_SPLIT_KEYS & content.keys())


def _root(content: dict[str, Any], file: Path) -> Path:
    value = content.get("path")
    if value in (None, "", "."):
        return file.parent
    if not isinstance(value, str):
        raise DataError(what=f"{file}: `path` is {value!r}", fix="give a folder, relative to the YAML or absolute")
    root = (file.parent / Path(value).expanduser()).resolve()
    if root.is_dir():
        return root
    # YAML files travel with their folder while `path` still names the place where they were made.
    return file.parent


def _split(
    split: str, key: str, value: Any, content: dict[str, Any], root: Path, names: tuple[str, ...] | None, file: Path
) -> SplitReader:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise DataError(what=f"{file}: `{key}` is {value!r}", fix="give a path or a list of paths")
    if any(entry.lower().endswith(".json") for entry in entries):
        if len(entries) != 1:
            raise DataError(what=f"{file}: `{key}` lists several JSON files", fix="give one COCO JSON per split")
        annotations = _find(entries[0], root, file, key)
        folders = _image_folders(content.get("images"), split, key, root, file)
        folders = folders or image_folders(annotations, split, root)
        return CocoSplit(split, root, annotations, folders, names)
    if names is None:
        raise DataError(
            what=f"{file} has no `names`",
            why="YOLO labels are numbers; their names are in the YAML",
            fix="add `names: [first, second, ...]` in the order of the numbers",
        )
    paths = tuple(_image_entry(_find(entry, root, file, key)) for entry in entries)
    return YoloSplit(split, root, paths, names, _category_ids(content, names, file), root)


def _image_folders(value: Any, split: str, key: str, root: Path, file: Path) -> tuple[Path, ...]:
    """The `images:` of a YAML that names COCO files: one folder, or a folder per split."""
    if isinstance(value, dict):
        value = value.get(key, value.get(split))
    if value is None:
        return ()
    if not isinstance(value, str):
        raise DataError(what=f"{file}: `images` is {value!r}", fix="give a folder, or one per split")
    folder = _find(value, root, file, "images")
    return tuple(path for path in (folder, folder / key, folder / split) if path.is_dir())


def _image_entry(path: Path) -> Path:
    """`train` where `train/images` is meant."""
    return path / "images" if path.is_dir() and not has_images(path) and (path / "images").is_dir() else path


def _find(entry: str, root: Path, file: Path, key: str) -> Path:
    path = Path(entry).expanduser()
    stripped = Path(*(part for part in path.parts if part != "..")) if not path.is_absolute() else path
    tried = list(dict.fromkeys((place / form).resolve() for form in (path, stripped) for place in (root, file.parent)))
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise DataError(
        what=f"{file}: `{key}: {entry}` does not exist",
        why=f"looked for {', '.join(map(str, tried))}",
        fix="paths are relative to `path`, and `path` to the YAML file",
    )


def _names(value: Any, file: Path) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (not isinstance(key, int), key if isinstance(key, int) else 0))
        if keys != list(range(len(keys))):
            raise DataError(
                what=f"{file}: the numbers under `names` are {keys[:12]}",
                why="classes are numbered from 0 without gaps",
                fix=f"use 0 to {len(keys) - 1}",
            )
        value = [value[key] for key in keys]
    if not isinstance(value, list) or not value:
        raise DataError(what=f"{file}: `names` is {value!r}", fix="give a list of names, or `0: name` pairs")
    names = tuple(str(name) for name in value)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(what=f"{file}: names are used twice: {', '.join(twice)}", fix="give every class its own name")
    return names


def _check_count(count: Any, names: tuple[str, ...] | None, file: Path) -> None:
    if count is not None and names is not None and count != len(names):
        raise DataError(
            what=f"{file}: `nc` is {count} and there are {len(names)} names",
            why="the two must agree",
            fix="correct the names, or remove `nc`",
        )


def _category_ids(content: dict[str, Any], names: tuple[str, ...], file: Path) -> tuple[int, ...]:
    """COCO ids, kept by `data convert` under `category_ids`; otherwise 1 to K."""
    ids = content.get("category_ids")
    if ids is None:
        return tuple(range(1, len(names) + 1))
    if not isinstance(ids, list) or len(ids) != len(names) or not all(isinstance(number, int) for number in ids):
        raise DataError(what=f"{file}: `category_ids` does not match `names`", fix="give one number per name")
    return tuple(ids)


def yolo_in_folder(folder: Path) -> dict[str, SplitReader]:
    """Splits of a folder with a dataset YAML, or with `images/` and `labels/`; empty if it has neither."""
    files = [path for path in sorted(folder.glob("*.y*ml")) if is_dataset_yaml(path)]
    usual = [path for path in files if path.stem in ("data", "dataset")]
    if len(usual or files) > 1:
        raise DataError(
            what=f"{folder} holds several dataset descriptions",
            why=f"found {', '.join(path.name for path in usual or files)}",
            fix="pass the YAML file you mean",
        )
    if files:
        return splits_in_yaml((usual or files)[0])
    return _by_folders(folder)


def _by_folders(folder: Path) -> dict[str, SplitReader]:
    """`images/train` + `labels/train`, `train/images` + `train/labels`, or `images` + `labels` alone."""
    places: dict[str, Path] = {}
    for alias in sorted(_SPLIT_KEYS):
        for place in (folder / "images" / alias, folder / alias / "images"):
            if place.is_dir() and _has_labels(place):
                places[canonical_split(alias)] = place
    if not places and (folder / "images").is_dir() and _has_labels(folder / "images"):
        places["train"] = folder / "images"
    if not places:
        return {}
    names = _names_beside(folder, places)
    ids = tuple(range(1, len(names) + 1))
    return {name: YoloSplit(name, folder, (places[name],), names, ids, folder) for name in in_order(list(places))}


def _has_labels(images: Path) -> bool:
    labels = labels_folder(images)
    return labels != images and labels.is_dir() and next(labels.rglob("*.txt"), None) is not None


def _names_beside(folder: Path, places: dict[str, Path]) -> tuple[str, ...]:
    """From `classes.txt` and the like; numbers as names when there is none."""
    for place in (folder, *(labels_folder(images) for images in places.values())):
        for name in ("classes.txt", "obj.names", "names.txt", "labels.txt"):
            if (place / name).is_file():
                lines = (place / name).read_text(encoding="utf-8-sig").splitlines()
                return tuple(line.strip() for line in lines if line.strip())
    highest = 0
    for images in places.values():
        for image in image_files(images):
            file = labels_folder(image.parent) / f"{image.stem}.txt"
            for row in file.read_text(encoding="utf-8").split("\n") if file.is_file() else ():
                first = row.split(maxsplit=1)[:1]
                highest = max(highest, int(first[0]) if first and first[0].isdigit() else 0)
    return tuple(f"class {number}" for number in range(highest + 1))
