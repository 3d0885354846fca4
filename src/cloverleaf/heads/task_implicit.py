"""Which canonical representation each task of a head has (arXiv 2105.04206, sections 4.2 and 5.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, model_serializer
from pydantic.dataclasses import dataclass

from cloverleaf.errors import ConfigError
from cloverleaf.heads.anchor_based import AnchorHeadSpec
from cloverleaf.heads.dense import DenseHeadSpec
from cloverleaf.layers.implicit import NONE, ImplicitOptions
from cloverleaf.layers.implicit.options import read_options

TaskName = Literal["boxes", "tags", "embeddings"]
OwnOptions = ImplicitOptions | Literal["none"] | None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TaskImplicit:
    """Implicit knowledge at the start of each task's branch; all operators fold there.

    Attributes:
        task: of every task; None for none.
        boxes, tags, embeddings: of that task; `none` for none, None for `task`.
    """

    task: ImplicitOptions | None = ImplicitOptions(operator="add")
    boxes: OwnOptions = None
    tags: OwnOptions = None
    embeddings: OwnOptions = None

    def of(self, task: TaskName) -> ImplicitOptions | None:
        """That of one task."""
        own: OwnOptions = getattr(self, task)
        return self.task if own is None else None if isinstance(own, str) else own

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        """What was chosen, by task."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"task": own.pop("task") or "none", **{name: value for name, value in own.items() if value is not None}}


def read_task_implicit(value: Any) -> TaskImplicit:
    """The option `implicit` of a head for several tasks.

    Args:
        value: true for an additive vector of every task, false for none, or a mapping of `task` and names of tasks to
            operators or options; what it leaves out stays as with true.

    Raises:
        ConfigError: an unknown task, operator or option; lists the valid ones.
    """
    if isinstance(value, TaskImplicit):
        return value
    if value is None or isinstance(value, bool):
        return TaskImplicit() if value else TaskImplicit(task=None)
    valid = [field.name for field in dataclasses.fields(TaskImplicit)]
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"model.head.implicit = {value!r} is not valid", "implicit knowledge is given by placement",
            f"write e.g. model.head.implicit.task=add; valid placements: {', '.join(valid)}",
        )  # fmt: skip
    for name in value:
        if name not in valid:
            raise ConfigError(
                f"model.head.implicit: no placement {name!r}",
                "this head has no such place",
                f"valid: {', '.join(valid)}",
            )
    read = {
        name: "none" if options in (None, False, "none") else read_options(f"model.head.implicit.{name}", options)
        for name, options in value.items()
    }
    if read.get("task") == "none":
        read["task"] = None  # type: ignore[assignment]
    return TaskImplicit(**cast(Any, read))


task_implicit = BeforeValidator(read_task_implicit)


def aligned_boxes(boxes: AnchorHeadSpec | DenseHeadSpec, implicit: TaskImplicit) -> AnchorHeadSpec | DenseHeadSpec:
    """The head for boxes with its task's representation, which stands where its `align` does.

    A head that aligns by itself has one there already, and keeps it: two addends on the same channels would be one.

    Raises:
        ConfigError: a representation of boxes is asked for, and the head has one of its own.
    """
    held = boxes.placements if isinstance(boxes, AnchorHeadSpec) else boxes.implicit or NONE
    options, own = implicit.of("boxes"), held.align
    if options is None:
        return boxes
    if own is None:
        return dataclasses.replace(boxes, implicit=dataclasses.replace(held, align=options))
    if implicit.boxes is not None and options != own:
        raise ConfigError(
            f"model.head.implicit.boxes = {options.operator!r} has no effect",
            f"the head for boxes has one there already: implicit.align = {own.operator!r}",
            "set model.head.boxes.implicit.align instead, or leave it out",
        )
    return boxes
