"""Where Markdown comes from: errors that name file and line, and the parts of a text that notations leave alone."""

import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path

try:
    from mkdocs.exceptions import BuildError  # MkDocs prints it as one line, without a traceback
except ImportError:
    BuildError = Exception


class SourceError(BuildError, ValueError):
    """A contributor's mistake, as "file:line: what is wrong. How to mend it"."""


TOKEN = re.compile(
    r"""
    ^(?P<mark>`{3,}|~{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=mark)[ ]*$   # a fence
    | (?P<ticks>(?<![\\`])`+(?!`))(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)   # a code span
    | (?<!\\)\$\$(?P<display>.*?)\$\$
    | (?<![\\$])\$(?!\s)(?P<inline>(?:\\.|[^\\$])+?)(?<!\s)\$
    | !\[(?P<alt>[^\]]*)\]\(
    | \{\{(?P<braces>.*?)\}\}
    """,
    re.M | re.S | re.X,
)


FENCE = re.compile(r"^```.*?^```[ \t]*$", re.S | re.M)
DISPLAYED = re.compile(r"\$\$.*?\$\$", re.S)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)


def blank(pattern: re.Pattern, text: str) -> str:
    """The text with matches turned to spaces: every other character keeps its line and column."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def place(path: Path, root: Path, line: int) -> str:
    """The beginning of a message: docs/posts/Diffusion.md:12."""
    return f"{path.relative_to(root).as_posix()}:{line}"


def line_of(text: str, at: int) -> int:
    """The line, from 1, of a place in a text."""
    return text.count("\n", 0, at) + 1


@dataclass(frozen=True)
class Source:
    """The Markdown of one page and the place that it comes from."""

    root: Path
    path: str  # relative to root: "docs/posts/Diffusion.md"
    text: str
    first_line: int = 1  # line of the file at which text starts
    url: str = ""  # address of the page: "posts/Diffusion/"
    key: str | None = None  # of a post: "LLM/ROPE"
    blocks: dict[str, str] = field(default_factory=dict)  # HTML that a line {{ name }} stands for
    equations: dict = field(default_factory=dict)  # `theme.page.marks.Mark` by id
    tests: dict[str, dict] = field(default_factory=dict)  # of each kind of mark: path and line of its test by id
    cells: tuple[int, ...] = ()  # of a notebook: the offset in text at which each cell starts

    def error(self, offset: int, message: str) -> SourceError:
        """The error that names the place of text[offset]."""
        if self.cells:
            return SourceError(f"{self.path}: cell {bisect_right(self.cells, offset)}: {message}")
        return SourceError(f"{self.path}:{self.first_line + self.text.count(chr(10), 0, max(offset, 0))}: {message}")

    def error_at(self, part: str, message: str) -> SourceError:
        """The error that names the first place of a part of the text."""
        return self.error(self.text.find(part.strip().split("\n")[0]), message)

    def link(self, url: str) -> str:
        """An address of the site, relative to this page."""
        return relative(url, self.url)


def relative(url: str, base: str) -> str:
    """The address url ("labs/Diffusion/", "a/b.css#x") as seen from the page at base ("posts/x/", or "" for home)."""
    path = posixpath.relpath(url or ".", base or ".")
    return path + "/" if not url or url.endswith("/") else path


def once_per_version(read: Callable[[Path], object]):
    """Decorator for a function of a file: called again only when the file has changed."""
    seen = {}

    @wraps(read)
    def cached(path: Path):
        stat = path.stat()
        version = stat.st_mtime_ns, stat.st_size
        if seen.get(path, (None,))[0] != version:
            seen[path] = version, read(path)
        return seen[path][1]

    return cached
