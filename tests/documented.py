"""Commands and snippets of our documents, as readers would run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from cloverleaf.cli.main import app

_DOCS = Path(__file__).parents[1] / "docs"


def text_from(document: str, heading: str) -> str:
    """What follows a heading of a document."""
    return (_DOCS / document).read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1]


def run_commands(text: str, narrow: Callable[[list[str]], list[str]], after: Callable[[list[str]], None]) -> None:
    """Run every command of the text, in order, in the current folder.

    Args:
        text: of a document.
        narrow: makes the words after `cloverleaf` those of a smaller task.
        after: is given the words of each command that has ended well.
    """
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S):
        for command in block.splitlines():
            words = shlex.split(command)
            assert words[0] == "cloverleaf"
            result = CliRunner().invoke(app, narrow(words[1:]), catch_exceptions=False)
            assert result.exit_code == 0, f"{command}\n{result.output}"
            after(words)


def run_snippets(text: str) -> None:
    """Run every Python snippet of the text, in the current folder."""
    for snippet in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        exec(snippet, {})  # our own document
