"""What a pickle turns into here: plain containers and inert stand-ins that never do anything."""

from __future__ import annotations

from dataclasses import dataclass, field

DAMAGED = "download or copy the file again"
HOSTILE = "do not open this file with other programs; get the checkpoint from its publisher again"
UNTRUSTED = "if you trust it, save the state dict with the program it is from, and import that; else delete it"
UNUSUAL = "save the model's state dict with torch.save, or as safetensors, and import that"


class Unreadable(Exception):
    """Why a file is not read, and what to do; `reader` turns it into a `CheckpointError` that names the file."""

    def __init__(self, why: str, fix: str = DAMAGED) -> None:
        self.why, self.fix = why, fix
        super().__init__(why, fix)


@dataclass(eq=False, frozen=True, slots=True)
class Global:
    """The name of a class or function; nothing is looked up."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Record:
    """An object of a class that is only known by name.

    Attributes:
        cls: its class.
        args: what its class would have been called with.
        attributes: what its state would have set.
        items, values: what would have been put into it, were it a dict or a list.
    """

    cls: Global
    args: tuple[object, ...] = ()
    attributes: dict[str, object] = field(default_factory=dict)
    items: dict[object, object] = field(default_factory=dict)
    values: list[object] = field(default_factory=list)


@dataclass(eq=False, frozen=True, slots=True)
class StorageRef:
    """A storage: its name in the file, type of element (a name of ``torch``) and number of elements."""

    key: str
    dtype: str
    numel: int


@dataclass(eq=False, frozen=True, slots=True)
class TensorRef:
    """A tensor as a window on a storage, in elements; checked against the real storage when it is read."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def shown(value: object, limit: int = 100) -> str:
    """A stranger's text or numbers, fit for a message: one printable line of at most about ``limit`` characters."""
    if isinstance(value, tuple) and all(isinstance(item, int) for item in value):
        text = "(" + ", ".join(map(str, value)) + ")"
    elif value is None or isinstance(value, str | int | float):
        text = str(value)
    else:  # never its repr, which may be of any length and depth
        text = f"an object of type {type(value).__name__}"
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return line if len(line) <= limit else f"{line[:limit]}..."
