"""The documents say what is true: commands, keys, links, snippets, tables and test names exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import cloverleaf
from architecture.test_imports import RANKS
from cloverleaf.cli.main import app
from cloverleaf.models.catalog import MODELS
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.config_io import flatten, parse_assignments, to_dict, update

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "cloverleaf"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCUMENTS = sorted([*READMES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def each(paths: Any) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    lines = "\n".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def table(path: Path, columns: int) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows if len(row) == columns]


@each(DOCUMENTS)
def test_commands_exist(path: Path) -> None:
    """Every command is parsed by the command line itself, and every `--set` key by the configuration."""
    for words in commands(path):
        if words[0] == "make":
            assert set(words[1:]) <= MAKE_TARGETS, words
            continue
        if "cloverleaf" not in words:
            assert words[0] == "pip", words
            continue
        assert words[0] in ("cloverleaf", "torchrun", "srun"), words
        command: Any = typer.main.get_command(app)
        rest = words[words.index("cloverleaf") + 1 :]
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, f"{path.name}: no verb {rest[:1]} in {shlex.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        context = command.make_context(command.name, list(rest))  # raises for unknown options and missing ones
        config = PretrainConfig() if command.name == "pretrain" else TrainConfig()
        update(config, parse_assignments(context.params.get("set_") or []))


def test_both_readmes_hold_the_same() -> None:
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert len(commands(english)) > 10
    trees = [[ast.dump(ast.parse(block)) for block in blocks(path, "python")] for path in READMES]
    assert trees[0] == trees[1]
    links = [[target for target in re.findall(r"\]\(([^)]+)\)", p.read_text("utf-8")) if "README" not in target]
             for p in READMES]  # fmt: skip
    assert links[0] == links[1]
    assert [row[1:] for row in table(english, 4)[1:]] == [row[1:] for row in table(chinese, 4)[1:]]


@each(DOCUMENTS)
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https://)([^)#]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"
    for name in re.findall(r"`((?:tests|benchmarks|docs)/[\w./-]+\.(?:py|md))(?=[`:])", text):
        assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"
    for name in re.findall(r"`([a-z_]+/[a-z0-9_/]+\.py)`", text):
        assert (SRC / name).is_file() or (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"


@cache
def functions_of(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


def test_the_register_is_numbered_and_its_tests_exist() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    entries = re.findall(r"^(\d+)\. \*\*(.+?)\*\* \((?:ours|same).*Pinned by:\* .+$", text, re.MULTILINE)
    numbers = [int(number) for number, _ in entries]
    assert len(numbers) == len(set(numbers)) == len(re.findall(r"^\d+\. ", text, re.MULTILINE)) >= 51
    for file, function in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert function in functions_of(file), f"{file} has no {function}"
    cited = [
        int(n) for p in SRC.rglob("*.py") for n in re.findall(r"fidelity\.md,\s+entry (\d+)", p.read_text("utf-8"))
    ]
    assert cited and set(cited) <= set(numbers)


def documented_attributes() -> set[str]:
    """Public attributes of what the API returns, and of torch as far as the snippets use it."""
    from cloverleaf.deploy.export import ExportResult
    from cloverleaf.deploy.verify import Parity
    from cloverleaf.heads.point_rend import PointRendHead
    from cloverleaf.heads.regions import RegionHead
    from cloverleaf.heads.uper_net import UperNetHead
    from cloverleaf.models.detector import Detector
    from cloverleaf.models.metadata import WeightsMetadata
    from cloverleaf.predict.evaluate import EvaluationResult, Speed
    from cloverleaf.structures import Classification, Instances, LabelMap, Mask
    from cloverleaf.tracking.options import Tracked
    from cloverleaf.training.finish import TrainResult
    from cloverleaf.weights.published import ImportedCheckpoint

    names = {"rand", "shape", "metadata"}
    for cls in (
        Classification, cloverleaf.Detections, cloverleaf.Predictor, Detector, WeightsMetadata, EvaluationResult,
        ImportedCheckpoint, Speed, TrainResult, ExportResult, Parity, Instances, LabelMap, Mask, RegionHead,
        PointRendHead, UperNetHead, cloverleaf.Tracker, Tracked,
    ):  # fmt: skip
        names |= {name for name in (*vars(cls), *getattr(cls, "__annotations__", ())) if not name.startswith("_")}
    return names


@each([path for path in DOCUMENTS if blocks(path, "python") and path != READMES[1]])
def test_python_snippets_use_public_names(path: Path) -> None:
    from cloverleaf.models.catalog import find_spec

    known = documented_attributes()
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute):
                own = isinstance(node.value, ast.Name) and node.value.id == "cloverleaf"
                assert node.attr in (cloverleaf.__all__ if own else known), f"{path.name}: {ast.unparse(node)}"
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"cloverleaf", "torch"}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "cloverleaf.create_model":
                given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
                given.pop("num_classes", None)
                find_spec(ast.literal_eval(node.args[0])).with_overrides(given)  # raises for unknown parts and options


def test_architecture_names_every_folder_and_the_ranks() -> None:
    path = ROOT / "docs" / "architecture.md"
    listed = {row[0].strip("`/") for row in table(path, 2) if row[0].endswith("/`")}
    folders = {str(file.parent.relative_to(SRC)) for file in SRC.rglob("*") if file.suffix in (".py", ".j2")} - {"."}
    assert listed == folders
    ranks = {name: int(row[0]) for row in table(path, 2) if row[0].isdigit() for name in re.findall(r"`(\w+)`", row[1])}
    assert ranks == RANKS


QUICK_TO_MEASURE = 25  # million parameters: the others are measured with the slow tests, one of each family here, too


def test_tables_name_the_models_of_the_catalog() -> None:
    chosen = [row[0] for row in table(READMES[0], 4) if row[0] not in ("name", "---")]  # the README has some of them
    assert len(chosen) > 20 and set(chosen) <= set(MODELS)
    rows = [row[0] for row in table(ROOT / "docs" / "models.md", 8) if row[0] not in ("name", "---")]
    assert sorted(rows) == sorted(MODELS)


def measured() -> list[Any]:
    known = {row[0]: row for row in table(ROOT / "docs" / "models.md", 8)}
    large = {name for name in MODELS if name not in known or float(known[name][3]) > QUICK_TO_MEASURE}
    large -= {"yolor-p6", "yolor-csp-v7", "yolov7-w6"}
    return [pytest.param(name, marks=[pytest.mark.slow] if name in large else []) for name in MODELS]


@pytest.mark.parametrize("name", measured())
def test_tables_say_what_models_cost(name: str) -> None:
    from cloverleaf.models.cost import measure

    variant, size = MODELS[name], MODELS[name].image_size
    forms = (variant.spec, variant.spec.as_deployed(), variant.spec.as_fused())
    costs = [measure(spec, (size, size)) for spec in forms]
    gflops = [f"{cost.flops / 1e9:.2f}" for cost in costs]
    short = [name, str(size), f"{costs[1].params / 1e6:.2f} M", gflops[1]]
    assert [row for row in table(READMES[0], 4) if row[0] == name] in ([], [short])
    long = [name, str(size), *(f"{cost.params / 1e6:.3f}" for cost in costs), *gflops[1:]]
    assert [row[:7] for row in table(ROOT / "docs" / "models.md", 8) if row[0] == name] == [long]


def test_table_of_options_is_the_configuration() -> None:
    rows = [row for row in table(ROOT / "docs" / "training.md", 3) if row[0].startswith("`") and row[1].startswith("`")]
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert documented == {key: json.dumps(value) for key, value in flatten(to_dict(TrainConfig())).items()}


def test_every_fault_of_the_linter_is_documented() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (SRC / "data").rglob("*.py"))
    codes = set(re.findall(r"\bFault\(\s*\"([a-z0-9-]+)\"", source))
    assert len(codes) > 20
    assert {code for code in codes if f"`{code}`" not in text} == set()
