r"""Numbered equations: \label{name} in a formula of a post, @pytest.mark.equation("name") on its test."""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from theme.page.pages import ROOT, Page
from theme.page.source import SourceError

FENCE = re.compile(r"^```.*?^```[ \t]*$", re.S | re.M)
DISPLAY = re.compile(r"\$\$.*?\$\$", re.S)
LABEL = re.compile(r"\\label\{([^}]*)\}")
ID = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True)
class Equation:
    """A numbered equation and where it stands."""

    id: str
    number: int  # within its post, from 1
    path: str  # of its post, relative to the root
    line: int


def equations(posts: Iterable[Page], root: Path) -> dict[str, Equation]:
    """The numbered equations of all posts by id; SourceError for a bad or a duplicate id."""
    found = {}
    for post in posts:
        path = post.path.relative_to(root).as_posix()
        for number, (name, line) in enumerate(labels(post), 1):
            if not ID.fullmatch(name):
                raise SourceError(
                    f"{path}:{line}: the label {name!r} is not like ddpm-forward. Use a-z, 0-9 and hyphens"
                )
            if name in found:
                other = found[name]
                raise SourceError(f"{path}:{line}: {other.path}:{other.line} has the label {name!r} too. Rename one")
            found[name] = Equation(name, number, path, line)
    return found


_seen: dict[Path, tuple[list, dict]] = {}


def tests(root: Path) -> dict[str, tuple[str, int]]:
    """Path and line of each equation's test; the tests are read again only when one of them has changed."""
    versions = sorted((path, path.stat().st_mtime_ns) for path in (root / "tests").rglob("test_*.py"))
    if _seen.get(root, (None,))[0] != versions:
        _seen[root] = versions, equation_tests(root)
    return _seen[root][1]


def blank(pattern: re.Pattern, text: str) -> str:
    """The text with matches turned to spaces: every other character keeps its line and column."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def displays(page: Page) -> list[tuple[str, int, str]]:
    r"""The numbered equations of a page: each \label inside a display formula, its line in the file, and the LaTeX."""
    text = blank(FENCE, page.text)
    found = [(m[1], d.start() + m.start(), d[0][2:-2]) for d in DISPLAY.finditer(text) for m in LABEL.finditer(d[0])]
    return [(label, page.first_line + text.count("\n", 0, at), tex) for label, at, tex in found]


def labels(page: Page) -> list[tuple[str, int]]:
    """The labels of a page's numbered equations, with their lines."""
    return [(label, line) for label, line, _ in displays(page)]


def markers(root: Path = ROOT) -> list[tuple[str | None, str, int]]:
    """Every use of pytest.mark.equation in a test's decorators: id (None if it is no literal), path and line."""
    found = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        for test in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(test, ast.FunctionDef | ast.ClassDef):
                continue
            for node in (node for decorator in test.decorator_list for node in ast.walk(decorator)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.equation":
                    ids = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args] or [None]
                    found += [(one, name, test.lineno) for one in ids]
    return found


def equation_tests(root: Path = ROOT) -> dict[str, tuple[str, int]]:
    """For each equation id the test that checks it: path below root and line; the first where there are several."""
    found: dict[str, tuple[str, int]] = {}
    for one, path, line in markers(root):
        if one is not None:
            found.setdefault(one, (path, line))
    return found
