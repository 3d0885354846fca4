"""The import ranks of docs/architecture.md, read from the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "cloverleaf"

# A package may import from lower ranks and from itself; equal rank means siblings that do not know each other.
RANKS = {
    "errors": 0, "atomic": 0,
    "structures": 1,
    "ops": 2, "drawing": 2,
    "layers": 3, "data": 3, "assigners": 3, "losses": 3, "evaluation": 3,
    "backbones": 4, "necks": 4, "heads": 4,
    "models": 5,
    "weights": 6,
    "deploy": 7,
    "reports": 7,
    "predict": 8,
    "training": 9, "inspection": 9, "tracking": 9,
    "recipes": 10, "pretraining": 10,
    "ablation": 11,
    "cli": 12,
}  # fmt: skip
OPTIONAL_OR_HEAVY = {"lightning": {"training", "pretraining"}}
MODULES = sorted(SRC.rglob("*.py"))


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import statement, wherever it stands, except type-checking ones."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "cloverleaf":
            found += [(node.lineno, f"cloverleaf.{alias.name}") for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}:{node.lineno}: star import"
            found.append((node.lineno, node.module or ""))
    return found


def package_of(path: Path) -> str | None:
    """The top-level part below cloverleaf that a file belongs to; None for the package's own two files."""
    relative = path.relative_to(SRC)
    top = relative.parts[0].removesuffix(".py")
    return None if top in ("__init__", "__main__") else top


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_follow_the_ranks(path: Path) -> None:
    own = package_of(path)
    if own is None:
        return
    assert own in RANKS, f"{own}/ has no rank; add it to docs/architecture.md and here"
    for line, module in imports_of(path):
        top = module.split(".")[0]
        assert own in OPTIONAL_OR_HEAVY.get(top, {own}), (
            f"{path}:{line}: only {OPTIONAL_OR_HEAVY[top]} may import {top}"
        )
        if top == "cloverleaf" and module != "cloverleaf":
            other = module.split(".")[1]
            assert other == own or RANKS[other] < RANKS[own], f"{path}:{line}: {own} may not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_code_from_configuration(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{path}:{node.lineno}: {node.func.id}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
            assert not all(isinstance(part, ast.Pass) for part in node.body), (
                f"{path}:{node.lineno}: swallowed exception"
            )


def test_import_is_lazy() -> None:
    heavy = ("torch", "cv2", "lightning", "pydantic", "numpy")
    code = f"import cloverleaf, sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_public_names_exist() -> None:
    import cloverleaf

    for name in cloverleaf.__all__:
        assert getattr(cloverleaf, name) is not None
    assert callable(cloverleaf.deploy.fuse) and callable(cloverleaf.weights.import_state_dict)
