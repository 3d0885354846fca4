"""`cloverleaf ablate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cloverleaf.cli.options import names_in
from cloverleaf.errors import ConfigError


def ablate(
    file: Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY", show_default=False)],
    data: Annotated[str | None, typer.Option("--data", "-d", help="Dataset, instead of the study's.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: runs/ablate/NAME. Goes on if it is there.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the CPUs.")] = 1,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1: instead of the study's.")] = None,
    only: Annotated[str | None, typer.Option(help="Run these variations only: names with commas.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any value, for all variations; repeat for several."),
    ] = None,
    prepared: Annotated[
        list[str] | None,
        typer.Option("--prepared", metavar="NAME=FILE", help="Weights in place of a step of the study."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done.")] = False,
    table_only: Annotated[bool, typer.Option("--table-only", help="Make the table again from results.json.")] = False,
) -> None:
    """Train variations of a model or a recipe with several seeds and write one table.

    Everything is checked before the first run starts; the same command goes on where it was stopped.

    Leaves table.md, table.csv and table.png, curves.png and curves.csv, results.json and run folders; exit code 1 if a
    run failed.

    Examples:

        cloverleaf ablate study.yaml --data my-images --dry-run

        cloverleaf ablate study.yaml --data my-images --parallel 2

        cloverleaf ablate study.yaml --data my-images --seeds 3,4 --only plain

        cloverleaf ablate study.yaml --table-only
    """
    numbers = None if seeds is None else _seeds(seeds)
    names = names_in(only)
    from cloverleaf.ablation.run import ablate as run
    from cloverleaf.training.config_io import parse_assignments

    results = run(
        file, data=data, output=output, parallel=parallel, seeds=numbers, only=names,
        changes=parse_assignments(set_ or []), prepared=_files(prepared or []), dry_run=dry_run, table_only=table_only,
        command=shlex.join(["cloverleaf", *sys.argv[1:]]),
    )  # fmt: skip
    if results is not None and any(result.state == "failed" for result in results.runs):
        raise typer.Exit(1)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise ConfigError(f"--seeds {text!r} is not a list of seeds", "", "write e.g. --seeds 0,1,2")
    return [int(part) for part in parts]


def _files(texts: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file) or name in found:
            raise ConfigError(
                f"--prepared {text!r} is not possible", "it is NAME=FILE, once for each step",
                "write e.g. --prepared teacher=best.safetensors",
            )  # fmt: skip
        found[name] = Path(file)
    return found
