"""Ids that a page and a test share: an equation's label or a claim there, @pytest.mark.<kind>("id") here."""

import ast
import difflib
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from theme.page.source import line_of, once_per_version

QUOTES = '"' * 3, "'" * 3
DECORATED = re.compile(r"^( *)@.*?^\1(?:async )?def ", re.M | re.S)  # decorators of a function, up to its name
ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class Mark:
    """A numbered equation or a claim, and where it stands."""

    id: str
    number: int  # within its post, from 1
    path: str  # of its post, relative to the root
    line: int

    @property
    def here(self) -> str:
        """File and line, as messages begin."""
        return f"{self.path}:{self.line}"


@once_per_version
def _of(path: Path) -> list[tuple[str, str | None, int]]:
    """The uses of pytest.mark in the decorators of a file's tests: kind, first argument if it is a text, line."""
    found, text = [], path.read_text(encoding="utf-8")
    for match in DECORATED.finditer(text):
        if "pytest.mark." not in match[0] or sum(text.count(one, 0, match.start()) for one in QUOTES) % 2:
            continue  # no marker, or a text that a test writes
        for node in ast.walk(ast.parse(textwrap.dedent(match[0]) + "x(): pass")):
            if isinstance(node, ast.Call) and (name := ast.unparse(node.func)).startswith("pytest.mark."):
                ids = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args] or [None]
                found += [(name.rpartition(".")[2], one, line_of(text, match.end())) for one in ids]
    return found


def markers(root: Path, kind: str) -> list[tuple[str | None, str, int]]:
    """Every use of pytest.mark.<kind> in a test's decorators: id (None if it is no literal), path and line."""
    files = [(path, path.relative_to(root).as_posix()) for path in sorted((root / "tests").rglob("test_*.py"))]
    return [(one, name, line) for path, name in files for this, one, line in _of(path) if this == kind]


def tests(root: Path, kind: str) -> dict[str, tuple[str, int]]:
    """For each id the first test that carries it: path below root and line."""
    found: dict[str, tuple[str, int]] = {}
    for one, path, line in markers(root, kind):
        if one is not None:
            found.setdefault(one, (path, line))
    return found


def wrong_ids(marks: list[Mark], kind: str) -> list[str]:
    """Ids that are none, and ids that stand twice."""
    first, problems = {}, []
    for mark in marks:
        if not ID.fullmatch(mark.id):
            problems.append(f"{mark.here}: {mark.id!r} is no id. Use small letters, digits and -, as in ddpm-forward")
        elif mark.id in first:
            problems.append(f"{mark.here}: {kind} {mark.id} is at {first[mark.id].here} already. Choose another id")
        first.setdefault(mark.id, mark)
    return problems


def without_partner(marks: list[Mark], root: Path, kind: str, write: str) -> list[str]:
    """Marks of pages without a test, and tests' markers without their mark on a page; write: how a page has it."""
    ids, tested, problems = {mark.id for mark in marks}, tests(root, kind), []
    for mark in marks:
        if ID.fullmatch(mark.id) and mark.id not in tested:
            mend = f'Mark the test that checks it with @pytest.mark.{kind}("{mark.id}")'
            problems.append(f"{mark.here}: no test checks the {kind} {mark.id}. {mend}")
    for one, path, line in markers(root, kind):
        if one is None:
            problems.append(f"{path}:{line}: the marker's id is not written out. Write it as a string")
        elif one not in ids:
            near = difflib.get_close_matches(one, sorted(ids), n=1)
            mend = f"Write {near[0]}" if near else f"Write {write.replace('…', one)} on the page, or remove the marker"
            problems.append(f"{path}:{line}: no page has the {kind} {one} that this test checks. {mend}")
    return problems
