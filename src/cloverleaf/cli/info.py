"""`cloverleaf info`: structure and cost of a model, and what a weights file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloverleaf.errors import ConfigError

if TYPE_CHECKING:
    from cloverleaf.deploy.metadata import ExportMetadata
    from cloverleaf.models.cost import ModelCost
    from cloverleaf.models.spec import DetectorSpec
    from cloverleaf.weights.format import WeightsMetadata


def info(
    model: Annotated[
        str, typer.Argument(help="Catalog name, BACKBONE+NECK+HEAD, weights or exported file.", metavar="MODEL|FILE")
    ],
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square input; default: as published.", min=1)
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Number of classes; default: as published, or as in the file.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a model's stages, output shapes, parameters and operations.

    Operations are counted by torch.utils.flop_counter for one image, as 2 x multiply-accumulates of convolutions.

    Examples:

        cloverleaf info yolov7-tiny

        cloverleaf info elan-tiny+elan-pan+anchor --num-classes 3 --image-size 320

        cloverleaf info runs/train/weights/best.safetensors --json
    """
    if model.lower().endswith(".onnx"):
        _show_exported(model, image_size, num_classes, as_json)
        return
    from cloverleaf.models.cost import measure

    spec, metadata, side = _find(model, num_classes)
    size_hw = (image_size or side, image_size or side)
    forms: dict[str, ModelCost] = {
        form.form: measure(form, size_hw) for form in (spec, spec.as_deployed(), spec.as_fused())
    }
    if as_json:
        typer.echo(_as_json(spec, metadata, forms))
    else:
        _print(spec, metadata, forms)


def _show_exported(path: str, image_size: int | None, num_classes: int | None, as_json: bool) -> None:
    """What an exported file says about itself; its graph has no stages to count any more."""
    from dataclasses import asdict

    from cloverleaf.deploy.onnx_file import OnnxFile

    if image_size is not None or num_classes is not None:
        raise ConfigError(
            f"{path} is exported already",
            "its input and its classes are fixed",
            "leave --image-size and --num-classes out",
        )
    file = OnnxFile(path)
    if as_json:
        import json

        typer.echo(json.dumps({"metadata": asdict(file.metadata), "shapes": file.shapes}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    ends = Table(title=f"{file.metadata.model}, {file.metadata.num_classes} classes, exported")
    ends.add_column("input and outputs")
    ends.add_column("shape")
    for name, shape in file.shapes.items():
        ends.add_row(name, " x ".join(map(str, shape)))
    console.print(ends)
    console.print(_facts_table(file.metadata))


def _find(model: str, num_classes: int | None) -> tuple[DetectorSpec, WeightsMetadata | None, int]:
    """The spec, the metadata of a weights file, and the usual image size."""
    from dataclasses import replace

    from cloverleaf.models.catalog import MODELS, find_spec
    from cloverleaf.models.spec import DetectorSpec

    if not (Path(model).is_file() or model.endswith(".safetensors")):
        spec = find_spec(model) if num_classes is None else replace(find_spec(model), num_classes=num_classes)
        return spec, None, MODELS[model].image_size if model in MODELS else 640
    from cloverleaf.weights.format import read_metadata

    metadata = read_metadata(model)
    spec = DetectorSpec.from_dict(metadata.spec)
    if num_classes not in (None, spec.num_classes):
        raise ConfigError(
            f"--num-classes {num_classes} does not fit {model}",
            f"the file holds a model of {spec.num_classes} classes",
            "leave the option out",
        )
    return spec, metadata, metadata.image_size or 640


def _as_json(spec: DetectorSpec, metadata: WeightsMetadata | None, forms: dict[str, ModelCost]) -> str:
    import json
    from dataclasses import asdict

    return json.dumps(
        {
            "spec": spec.to_dict(),
            "form": spec.form,
            "metadata": asdict(metadata) if metadata else None,
            "flops_convention": "2 x multiply-accumulates",
            "forms": {form: asdict(cost) for form, cost in forms.items()},
        },
        indent=2,
    )


def _print(spec: DetectorSpec, metadata: WeightsMetadata | None, forms: dict[str, ModelCost]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    cost = forms[spec.form]
    height, width = cost.size_hw
    stages = Table(title=f"{spec.name}, {spec.num_classes} classes, {height} x {width} input, {spec.form} form")
    for column in ("stage", "type", "CxHxW", "stride", "parameters", "GFLOPs"):
        left = column in ("stage", "type")
        stages.add_column(column, justify="left" if left else "right", no_wrap=column != "type")
    part = ""
    for stage in cost.stages:
        if part and not stage.name.startswith(part):
            stages.add_section()
        part = stage.name.split(".")[0]
        shape = "x".join(map(str, stage.shape))
        gflops = f"{stage.flops / 1e9:.3f}"
        stages.add_row(stage.name, stage.type, shape, str(stage.stride), f"{stage.params:,}", gflops)
    console.print(stages)
    totals = Table(title="GFLOPs: 2 x multiply-accumulates")
    for column in ("form", "parameters", "GFLOPs"):
        totals.add_column(column, justify="left" if column == "form" else "right")
    for form, form_cost in forms.items():
        totals.add_row(form, f"{form_cost.params:,}", f"{form_cost.flops / 1e9:.2f}")
    console.print(totals)
    if cost.implicit_params:
        share = cost.implicit_params / cost.params
        typer.echo(f"implicit knowledge: {cost.implicit_params:,} parameters, {share:.1e} of all; none once deployed")
    if metadata is not None:
        console.print(_facts_table(metadata))


def _facts_table(metadata: WeightsMetadata | ExportMetadata) -> Any:
    from dataclasses import asdict

    from rich.table import Table

    table = Table(title="What the file says", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # check sums are not cut
    for key, value in asdict(metadata).items():
        if key == "spec" or value in ("", (), None, {}):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in value.items())
        elif isinstance(value, tuple):
            value = _listed(value)
        table.add_row(key.replace("_", " "), str(value))
    return table


def _listed(values: tuple[object, ...]) -> str:
    """All values; of many numbers, such as those of the individuals in the training data, the ends and how many."""
    if len(values) <= 100 or not all(isinstance(value, int) for value in values):
        return ", ".join(map(str, values))
    return f"{len(values)} from {values[0]} to {values[-1]}"
