"""Image folders for classification: `train/CLASS/*.jpg`, a folder per split and class, named as the class is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from cloverleaf.data.image_io import image_size
from cloverleaf.data.readers.files import digest, image_files, stamps
from cloverleaf.data.readers.splits import canonical_split, in_order
from cloverleaf.data.records import Fault, Header, ImageRecord, Location, ObjectRecord, OpenSplit, Report, refuse
from cloverleaf.errors import DataError, ImageError

FORMAT = "class-folders"
_PARTS_OF_DATASETS = frozenset({"images", "labels", "annotations", "masks", "jpegimages", "img"})  # of other formats


@dataclass(frozen=True)
class ClassFolderSplit:
    """One split: a folder for every class, its images at any depth.

    An image has one object: the whole of it.

    Attributes:
        folder: that holds the class folders.
        compared: another split of the dataset, whose classes this one must have; None for the first.
    """

    split: str
    root: Path
    folder: Path
    compared: Path | None

    @property
    def format(self) -> Literal["class-folders"]:
        """Name of the format."""
        return "class-folders"

    @property
    def identity(self) -> str:
        """The folder."""
        return f"{self.format}:{self.folder}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The classes, sorted by name."""
        return class_names(self.folder)

    @cached_property
    def paths(self) -> dict[str, list[Path]]:
        """Images of every class."""
        return {name: image_files(self.folder / name) for name in self.names}

    def fingerprint(self) -> str:
        """Of the class folders of this split and its counterpart, and of size and time of every image."""
        folders = "\n".join([*self.names, "", *(class_names(self.compared) if self.compared else ())])
        files = (path for paths in self.paths.values() for path in paths)
        return digest([folders.encode(errors="surrogateescape"), *stamps(files)])

    def open(self, report: Report = refuse) -> OpenSplit:
        """List the images; their sizes are read from their headers.

        Raises:
            DataError: there are fewer than two classes.
        """
        if len(self.names) < 2:
            raise DataError(
                what=f"{self.folder} has {len(self.names)} class folder{'' if len(self.names) == 1 else 's'}",
                why=f"found {', '.join(self.names) or 'none'}; a classifier tells at least two classes apart",
                fix="make a folder for every class and put its images into it",
            )
        self._compare(report)
        for name, paths in self.paths.items():
            if not paths:
                message = f"the class folder {name!r} holds no images"
                report(Fault("class-folder-empty", message, Location(self.folder / name), fix=_FILL))
        return OpenSplit(Header(self.names, tuple(range(1, len(self.names) + 1))), self._records())

    def _compare(self, report: Report) -> None:
        """Report classes that only one of two splits has."""
        if self.compared is None:
            return
        own, others = set(self.names), set(class_names(self.compared))
        lacking, beyond = sorted(others - own), sorted(own - others)
        if lacking or beyond:
            told = [f"lacks {_some(lacking)}"] * bool(lacking) + [f"has {_some(beyond)} beside them"] * bool(beyond)
            message = f"its classes are not those of {self.compared.name}: it {' and '.join(told)}"
            report(Fault("class-folders-differ", message, Location(self.folder), fix=_SAME))

    def _records(self) -> Iterator[ImageRecord]:
        number = 0
        for label, paths in enumerate(self.paths.values()):
            for path in paths:
                number += 1
                record = ImageRecord(path, None, number, Location(path))
                try:
                    height, width = record.size_hw = image_size(path)
                    record.objects = [ObjectRecord(label, (0.0, 0.0, float(width), float(height)), Location(path))]
                except ImageError as error:
                    record.problem = f"{error.what}: {error.why}"
                yield record

    def with_line(self, location: Location) -> Location:
        """There are no lines."""
        return location


_FILL = "put images of the class into it, or remove the folder from every split"
_SAME = "give every split a folder, with images, for each class"


def class_names(folder: Path) -> tuple[str, ...]:
    """Names of the class folders below a split's folder, sorted."""
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def class_folders_in(root: Path) -> dict[str, ClassFolderSplit]:
    """Splits of a folder that holds `train`, `val` or `test` with a folder per class; empty if it does not."""
    found: dict[str, Path] = {}
    for place in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        split = canonical_split(place.name)
        if split in ("train", "val", "test") and split not in found and _holds_classes(place):
            found[split] = place
    names = in_order(list(found))
    return {
        name: ClassFolderSplit(name, root, found[name], None if name == names[0] else found[names[0]]) for name in names
    }


def looks_like_classes_without_splits(root: Path) -> bool:
    """Whether a folder's own folders hold images, as those of classes do that were put into no split."""
    return _holds_classes(root) and len(class_names(root)) > 1


def _holds_classes(folder: Path) -> bool:
    names = {name.lower() for name in class_names(folder)}
    return bool(names - _PARTS_OF_DATASETS) and any(image_files(folder / name) for name in class_names(folder))


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
