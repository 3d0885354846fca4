"""Where Pascal VOC datasets keep their files."""

from __future__ import annotations

from pathlib import Path

from cloverleaf.data.readers.files import has_images
from cloverleaf.data.readers.splits import canonical_split, in_order
from cloverleaf.data.readers.voc import VocSplit
from cloverleaf.data.records import SplitReader

XML_FOLDERS = ("Annotations", "annotations", "voc", "VOC", "xml", "xmls", "labels")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img")
_LISTS = (Path("ImageSets", "Main"), Path("splits"), Path("ImageSets"))


def voc_in_folder(folder: Path) -> dict[str, SplitReader]:
    """Splits of a VOC folder, of its XML folder alone, or of split folders; empty if there are no XML files."""
    for name in XML_FOLDERS:
        if _has_xml(folder / name):
            return _one_xml_folder(folder, folder / name)
    if _has_xml(folder):
        root = folder.parent if folder.name in XML_FOLDERS else folder
        return _one_xml_folder(root, folder)
    return _split_folders(folder)


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.xml"), None) is not None


def _one_xml_folder(root: Path, xml: Path) -> dict[str, SplitReader]:
    tried = [*(root / name for name in _IMAGE_FOLDERS), xml, root]
    images = tuple(place for place in tried if has_images(place)) or (root,)
    names = _names_file(root, xml)
    splits: dict[str, SplitReader] = {}
    for place in _LISTS:
        for path in sorted((root / place).glob("*.txt")) if (root / place).is_dir() else ():
            if not _is_class_list(path):
                split = canonical_split(path.stem)
                splits[split] = VocSplit(split, root, (xml,), xml, path, images, names)
        if splits:
            return {name: splits[name] for name in in_order(list(splits))}
    return {"train": VocSplit("train", root, (xml,), xml, None, images, names)}


def _split_folders(folder: Path) -> dict[str, SplitReader]:
    """`train/*.xml` with the images beside them, or `train/Annotations` and `train/JPEGImages`."""
    found: dict[str, tuple[Path, Path]] = {}
    for place in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        if canonical_split(place.name) not in ("train", "val", "test"):
            continue
        for xml in (place, *(place / name for name in XML_FOLDERS)):
            if _has_xml(xml):
                found[canonical_split(place.name)] = (place, xml)
                break
    folders = tuple(xml for _, xml in found.values())
    splits: dict[str, SplitReader] = {}
    for split, (place, xml) in found.items():
        tried = [xml, place, *(place / name for name in _IMAGE_FOLDERS)]
        images = tuple(entry for entry in tried if has_images(entry)) or (xml,)
        splits[split] = VocSplit(split, folder, folders, xml, None, images, _names_file(folder, xml))
    return {name: splits[name] for name in in_order(list(splits))}


def _names_file(root: Path, xml: Path) -> Path | None:
    for place in (root, xml):
        if (place / "classes.txt").is_file():
            return place / "classes.txt"
    return None


def _is_class_list(path: Path) -> bool:
    """`aeroplane_train.txt` of the original VOC: two columns, stem and 1, 0 or -1."""
    with path.open(encoding="utf-8-sig") as file:
        return len(file.readline().split()) > 1
