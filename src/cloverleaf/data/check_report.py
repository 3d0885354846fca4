"""What the linter found: a list of findings, a verdict, JSON and a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cloverleaf.data.records import Location, Severity

if TYPE_CHECKING:
    from rich.console import Console

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
_STYLE = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of the dataset.

    Attributes:
        code: short stable name of the kind.
        severity: errors make `data check` fail, warnings deserve a look, notes are for information.
        message: what was found.
        file, line, item: where; line is None where the file has no lines, item is e.g. `annotation 17`.
        split: in which split.
    """

    code: str
    severity: Severity
    message: str
    file: str
    line: int | None
    item: str
    split: str

    @property
    def place(self) -> str:
        """``file:line (item)``."""
        text = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{text} ({self.item})" if self.item else text


def finding(code: str, severity: Severity, message: str, location: Location, split: str) -> Finding:
    """A finding at a location."""
    return Finding(code, severity, message, str(location.file), location.line, location.item, split)


@dataclass(frozen=True, slots=True)
class SplitCount:
    """What a split holds."""

    format: str
    images: int
    objects: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of `data check`."""

    source: str
    names: tuple[str, ...]
    splits: dict[str, SplitCount]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(found.severity == severity for found in self.findings)

    @property
    def verdict(self) -> Literal["errors", "warnings", "good"]:
        """The worst severity above a note."""
        return "errors" if self.count("error") else "warnings" if self.count("warning") else "good"

    def of(self, code: str) -> list[Finding]:
        """Findings of one kind."""
        return [found for found in self.findings if found.code == code]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "source": self.source,
            "verdict": self.verdict,
            "counts": {severity: self.count(severity) for severity in _ORDER},
            "names": list(self.names),
            "splits": {name: asdict(count) for name, count in self.splits.items()},
            "findings": [asdict(found) for found in self.findings],
        }

    def print(self, console: Console, *, examples: int = 3) -> None:
        """A table of the kinds of findings with some places each, and the verdict."""
        from rich.table import Table
        from rich.text import Text

        console.print(self.source, style="bold", highlight=False, soft_wrap=True)
        counts = Table()
        for name in ("split", "format", "images", "objects"):
            counts.add_column(name, justify="right" if name in ("images", "objects") else "left")
        for split, count in self.splits.items():
            counts.add_row(split, count.format, f"{count.images:,}", f"{count.objects:,}")
        console.print(counts)
        base = Path(self.source).resolve()
        groups: dict[tuple[int, str], list[Finding]] = defaultdict(list)
        for found in self.findings:
            groups[_ORDER[found.severity], found.code].append(found)
        if groups:
            table = Table(show_lines=True)
            table.add_column("found", no_wrap=True)
            table.add_column("where and what", ratio=1, overflow="fold")
            for (_, code), members in sorted(groups.items()):
                severity = members[0].severity
                lines = [f"{_shown(member.place, base)}: {member.message}" for member in members[:examples]]
                if len(members) > examples:
                    lines.append(f"... and {len(members) - examples:,} more")
                total = _counted(len(members), severity)
                table.add_row(Text.assemble((total, _STYLE[severity]), "\n", code), Text("\n".join(lines)))
            console.print(table)
        console.print(self._verdict_text())

    def _verdict_text(self) -> Any:
        from rich.text import Text

        numbers = ", ".join(_counted(self.count(severity), severity) for severity in _ORDER)
        advice = {
            "errors": (
                "FAILED",
                "bold red",
                "correct the errors: training leaves such boxes and images out, or refuses to start",
            ),
            "warnings": ("PASSED with warnings", "bold yellow", "usable; look at the warnings"),
            "good": ("PASSED", "bold green", "nothing to complain about"),
        }
        word, style, text = advice[self.verdict]
        return Text.assemble((word, style), f": {numbers}. {text[0].upper()}{text[1:]}.")


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _shown(place: str, base: Path) -> str:
    """Relative to the dataset, or to the folder it is in."""
    folder = base if base.is_dir() else base.parent
    if place == str(folder):
        return folder.name
    if place.startswith(f"{folder}/"):
        return place.removeprefix(f"{folder}/")
    return f"../{place.removeprefix(f'{folder.parent}/')}" if place.startswith(f"{folder.parent}/") else place
