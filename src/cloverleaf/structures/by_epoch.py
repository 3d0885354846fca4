"""Values that change in the course of a run: a pure function of the epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class ByEpoch(Generic[Value]):
    """What holds in which epochs.

    Attributes:
        ends: epochs, counted from 0, before which the values end, ascending: value k holds from ``ends[k - 1]`` (or 0)
            to before ``ends[k]``, and the last one after its end, too.
        values: as many.
    """

    ends: tuple[int, ...]
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        ascending = all(before < after for before, after in zip((0, *self.ends), self.ends, strict=False))
        if not self.values or len(self.ends) != len(self.values) or not ascending:
            raise ValueError(f"{len(self.values)} values need as many ascending ends, got {self.ends}")

    @classmethod
    def always(cls, value: Value, epochs: int = 1) -> ByEpoch[Value]:
        """One value for all ``epochs``."""
        return cls((epochs,), (value,))

    def place(self, epoch: float) -> int:
        """Which value holds in ``epoch``: its position."""
        return min(bisect_right(self.ends, epoch), len(self.values) - 1)

    def at(self, epoch: float) -> Value:
        """The value that holds in ``epoch``."""
        return self.values[self.place(epoch)]

    def start(self, epoch: float) -> int:
        """From where the value that holds in ``epoch`` does."""
        return (0, *self.ends)[self.place(epoch)]

    def end(self, epoch: float) -> int:
        """Where the value that holds in ``epoch`` ends."""
        return self.ends[self.place(epoch)]

    def map(self, make: Callable[[Value], Made]) -> ByEpoch[Made]:
        """Something made of every value, equal values giving the same thing once."""
        made: list[Made] = []
        for k, value in enumerate(self.values):
            same = next((j for j in range(k) if self.values[j] == value), None)
            made.append(make(value) if same is None else made[same])
        return ByEpoch(self.ends, tuple(made))
