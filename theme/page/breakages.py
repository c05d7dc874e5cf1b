"""What breaks it: a fault in a line or two of a page's code, as a diff, and the test that catches it."""

import html
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from theme.page import late, listings
from theme.page.code import aside
from theme.page.pages import INCLUDE, Page, posts
from theme.page.sections import marked
from theme.page.source import TOKEN, Source, SourceError, once_per_version

INFO = re.compile(r"diff (?P<path>tests/snippets/[\w/]+\.py)::(?P<name>\w+)")
DEFINED = re.compile(r"def (\w+)\(")
SIGNS = {"-": "del", "+": "ins", " ": "span", "": "span"}


@dataclass(frozen=True)
class Breakage:
    """A fault: where it stands on the page, where its lines stand in the code, and which test catches it."""

    place: str  # "docs/posts/Diffusion.md:12"
    module: str  # "snippets/ddpm.py"
    line: int  # of the module, at which the old lines start
    old: tuple[str, ...]
    new: tuple[str, ...]
    test: str  # "tests/snippets/test_ddpm.py"
    name: str  # "test_jump"
    test_line: int

    def code(self, root: Path) -> str:
        """The whole module, with the fault."""
        lines = (root / self.module).read_text(encoding="utf-8").split("\n")
        lines[self.line - 1 : self.line - 1 + len(self.old)] = self.new
        return "\n".join(lines)


def read(source: Source, fence: re.Match) -> Breakage:
    """The fault of a fence, a match of TOKEN; SourceError where its lines are not once in the page's code."""
    offset, test = fence.start("body"), INFO.fullmatch(fence["info"].strip())
    if not test:
        raise source.error(offset, "a fault names its test. Write ```diff tests/snippets/test_module.py::test_name")
    test_line = _tests(source.root / test["path"]).get(test["name"])
    if test_line is None:
        raise source.error(offset, f"there is no {test['path']}::{test['name']}. Name the test that notices the fault")
    lines = fence["body"].rstrip("\n").split("\n")
    strange = next((line for line in lines if line[:1] not in SIGNS), None)
    if strange is not None:
        raise source.error(offset, f"{strange!r} begins with no sign. Write -, + or a space before the code's own line")
    old, new = (tuple(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
    if old == new or not old:
        raise source.error(offset, "this fault changes no line of the page's code. Write that line with -, then with +")
    places = list(_places(source, old))
    if len(places) != 1:
        shown = next(line[1:].strip() for line in lines if line[:1] != "+")
        mend = "Copy it from there, comment and all" if not places else "Put a line around it, with a space before it"
        times = "is not" if not places else f"is {len(places)} times"
        raise source.error(offset, f"the line {shown!r} {times} in the page's code. {mend}")
    (module, line), place = places[0], f"{source.path}:{source.first_line + source.text.count(chr(10), 0, offset)}"
    return Breakage(place, module, line, old, new, test["path"], test["name"], test_line)


@once_per_version
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


def _places(source: Source, old: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Where the lines stand in the program that the page shows: module and line."""
    for path, section in dict.fromkeys((found["path"], found["section"]) for found in INCLUDE.finditer(source.text)):
        file = source.root / path
        known = marked(file)[0] if file.is_file() and not aside(path) else {}
        if section in known:
            code, (first, last) = _lines(file), known[section]
            for line in range(first + 1, last - len(old) + 1):
                if code[line - 1] == old[0] and tuple(code[line - 1 : line - 1 + len(old)]) == old:
                    yield path, line


@once_per_version
def _test_lines(path: Path) -> dict[str, int]:
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    return {found[1]: number for number, line in lines if (found := DEFINED.match(line))}


def _tests(path: Path) -> dict[str, int]:
    """The line of each test of a file, which need not exist."""
    return _test_lines(path) if path.is_file() else {}


def problems(root: Path) -> list[str]:
    """Faults whose lines are not once in their page's code, and such that name no test."""
    return [problem for post in posts(root) for problem in breakages(post, root)[1]]


def breakages(post: Page, root: Path) -> tuple[list[Breakage], list[str]]:
    """The faults of a page, and what is wrong with others."""
    source = Source(root, post.path.relative_to(root).as_posix(), post.text, post.first_line, key=post.key)
    found, problems = [], []
    for match in TOKEN.finditer(post.text):
        if match["mark"] and match["info"].startswith("diff"):
            try:
                found.append(read(source, match))
            except SourceError as error:
                problems.append(str(error))
    return found, problems


def titled_fence(source: Source, match: re.Match) -> str:
    """The opening line of a fault's fence (a match of TOKEN), with all that `fence` shows."""
    one = read(source, match)
    return f'```diff title="{one.module}:{one.line}:{one.test}:{one.test_line}:{one.name}"'


def fence(source: Source):
    """Formatter of the fences of faults: Python with a sign before each line, and a link to the test."""

    def format_fence(src, language, options, md, **kwargs):
        title = options.pop("title", None)
        if not title:
            return md.preprocessors["fenced_code_block"].highlight(src, language, options, md, **kwargs)
        module, line, test, test_line, name = title.split(":")
        lines = src.strip("\n").split("\n")
        code = textwrap.dedent("\n".join(line[1:] for line in lines))
        code = highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
        rows = [
            f"<{SIGNS[line[:1]]}>{line[:1] or ' '} {row}\n</{SIGNS[line[:1]]}>"
            for line, row in zip(lines, code.split("\n"), strict=False)
        ]
        where = f'<a href="{source.link(listings.page_url(module))}#L{line}">{module}</a>'
        caught = f'<a href="{source.link(listings.page_url(test))}#L{test_line}"><code>{name}</code></a>'
        return (
            f'<div class="language-diff highlight" style="--lines: {len(lines) + 2}">'
            f'<span class="filename">{where}</span>'
            + listings.focusable(
                f"<pre><code>{late.place(''.join(rows), html.escape(src, quote=False))}</code></pre>", src
            )
            + f'<p class="caught">Caught by {caught}</p></div>'
        )

    return format_fence
