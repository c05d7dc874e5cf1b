r"""Numbered equations: \label{name} in a formula of a post, @pytest.mark.equation("name") on its test."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from theme.pages import Page
from theme.report import LABEL, equation_tests, labels
from theme.source import SourceError

__all__ = ["LABEL", "Equation", "equations", "tests"]

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
