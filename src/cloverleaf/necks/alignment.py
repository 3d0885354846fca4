"""Implicit knowledge in necks: the maps of the way down brought into one kernel space (arXiv 2105.04206)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Self, TypeVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.implicit import AFTER, Placements, align_block, placed

Neck = TypeVar("Neck", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AlignableNeckSpec:
    """What the options of all necks have that merge maps from coarse to fine.

    Attributes:
        type: name of the neck.
        implicit: implicit knowledge by placement: `align`, on the output of each of these merges, between norm and
            activation of its last convolution. It vanishes when deployed.
    """

    type: str
    implicit: Annotated[Placements | None, placed("neck", align=AFTER)] = None

    def deployed(self) -> Self:
        """The same neck without implicit knowledge."""
        return replace(self, implicit=None)

    def aligned(self, neck: Neck, merges: Iterable[nn.Module]) -> Neck:
        """``neck`` with implicit knowledge in ``merges``, parts of it, as `implicit` wants.

        Raises:
            ConfigError: a merge does not end in one convolution, so that it could not be folded away; or there is none.
        """
        if self.implicit is None or self.implicit.align is None:
            return neck
        merges = tuple(merges)
        if not merges:
            raise ConfigError(
                "model.neck.implicit.align has no effect here",
                f"neck {self.type!r} is given a single map, so it merges nothing",
                "leave it out, or choose a backbone with maps of several strides",
            )
        for nth, merge in enumerate(merges):
            if not align_block(merge, self.implicit.align, nth=nth):
                raise ConfigError(
                    f"model.neck.implicit.align does not fit this form of neck {self.type!r}",
                    f"its merges ({type(merge).__name__}) do not end in one convolution, into which it could be folded",
                    "leave it out, or choose other merges, e.g. model.neck.groups=1",
                )
        return neck
