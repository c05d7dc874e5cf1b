"""Blocks of code: includes with a title that leads to the source page, folded blocks, and the source pages."""

import builtins
import html
import io
import keyword
import re
import sys
import tokenize
from functools import cache
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from theme.page import exercises, late
from theme.page.code import KINDS
from theme.page.kept import between_builds
from theme.page.pages import ASIDES, INCLUDE, ROOT
from theme.page.sections import marked
from theme.page.source import Source, once_per_version

MACHINERY = [ROOT / name for name in ("tests", "theme", "tools")]  # no colours there: a tenth of a build
NARROW = 38  # characters of code that fit a window of 390 pixels


def titled_fence(source: Source, fence: re.Match) -> str:
    """The opening line of a post's fence (a match of TOKEN), with the title that `python_fence` reads."""
    if not KINDS.fullmatch(fence["info"]):
        return fence["mark"] + fence["info"]
    found = INCLUDE.fullmatch(fence["body"].rstrip("\n"))
    line = marked(source.root / found["path"])[0][found["section"]][0] + 1
    return f'```python title="{found["path"]}:{found["section"]}:{line}:{fence["info"].partition(" ")[2]}"'


def block_id(path: str, section: str) -> str:
    """The anchor of the block that shows a section: code-ddpm-schedule."""
    return f"code-{Path(path).stem}-{section}"


def accept_options(language, inputs, options, attrs, md) -> bool:
    """Hand the title to the formatter of a fence."""
    options.update({name: inputs[name] for name in ("title",) if name in inputs})
    return True


def python_fence(source: Source):
    """Formatter of Python fences: the title is a link to the section's first line on the source page."""

    def format_fence(src, language, options, md, **kwargs):
        title = options.pop("title", None)
        path, section, line, kind = title.split(":") if title else ("", "", "", "")
        src, hint = exercises.without_hint(src) if kind == "solution" else (src, "")
        block = section_html(source.root / path, int(line), src) if title else None
        block = block or python_html(src)
        if block is None:
            block = md.preprocessors["fenced_code_block"].highlight(src, language, options, md, **kwargs)
        start, end = block.index("<code>") + 6, block.index("</code>")
        block = block[:start] + late.place(block[start:end], html.escape(src, quote=False)) + block[end:]
        block, lines = focusable(block, src), src.strip("\n").count("\n") + 1
        block = block.replace(">", f' style="--lines: {lines}">', 1)  # the stylesheet reserves their height
        if not title:
            return block
        name = {"library": "In the library · ", "given": "Given · "}.get(kind, "")
        link = f'{name}<a href="{source.link(page_url(path))}#L{line}">{path}</a>'
        block = block.replace(">", f'><span class="filename">{link}</span>', 1)
        block = block.replace(" ", f' id="{block_id(path, section)}" ', 1)
        if kind in ASIDES:
            block = block.replace('class="', f'class="{kind} ', 1)
        if kind == "fold":
            block = f'<details class="fold"><summary>{section} · {path}</summary>{block}</details>'
        if kind == "solution":
            block = f'<details class="fold"><summary>Solution</summary>{block}</details>'
            block = f'<details class="fold"><summary>Hint</summary><p>{html.escape(hint)}</p></details>{block}'
        return block

    return format_fence


def focusable(block: str, code: str) -> str:
    """A block that may scroll on a narrow window can be reached by keyboard, also without scripts."""
    wide = max(map(len, code.split("\n"))) > NARROW
    return block.replace("<pre>", '<pre tabindex="0">', 1) if wide else block


def page_url(path: str) -> str:
    """Address of the page that shows a file of the repository."""
    return f"source/{path}/"


BUILTINS = frozenset(name for name in dir(builtins) if name[0] != "_")
SORTS = {tokenize.COMMENT: "c1", tokenize.STRING: "s2", tokenize.NUMBER: "m"}
SORTS |= {
    getattr(tokenize, f"FSTRING_{part}"): "s2" for part in ("START", "MIDDLE", "END") if sys.version_info >= (3, 12)
}
WORDS = dict.fromkeys(keyword.kwlist, "k") | dict.fromkeys(("True", "False", "None"), "kc")
WORDS |= dict.fromkeys(("import", "from"), "kn") | dict.fromkeys(("and", "or", "not", "in", "is"), "ow")
AFTER = {"def": "nf", "class": "nc", "@": "nd"}


@between_builds
def python_lines(text: str) -> list[str] | None:
    """The lines of Python code as HTML with Pygments' classes, by Python's own tokenizer: its lexer takes ten times as
    long, and the site shows tens of thousands of lines. None if it is no Python that this version knows."""
    plain, before = text.split("\n"), ""
    marks = [[] for _ in plain]  # of each line: where a span starts and ends, and its class
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, IndentationError):
        return None
    for token in tokens:
        sort = SORTS.get(token.type)
        if token.type == tokenize.OP:
            sort = "o" if token.string.strip("()[]{},:;.") else None  # brackets and commas look like text
        elif token.type == tokenize.NAME:
            sort = AFTER.get(before) or WORDS.get(token.string) or ("nb" if token.string in BUILTINS else None)
            sort = "bp" if token.string in ("self", "cls") else sort
        if before == "@" and token.line.lstrip()[:1] != "@":
            sort = None  # a product of matrices
        if sort:
            (first, start), (last, end) = token.start, token.end
            for row in range(first, last + 1):
                marks[row - 1].append((start if row == first else 0, end if row == last else len(plain[row - 1]), sort))
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.string
    lines = [_marked_line(line, spans) for line, spans in zip(plain, marks, strict=True)]
    while lines and not lines[-1]:
        lines.pop()  # the end of the last line
    return lines


def _marked_line(line: str, spans: list[tuple[int, int, str]]) -> str:
    parts, at = [], 0
    for start, end, sort in spans:
        if end > start:
            parts += [
                html.escape(line[at:start], quote=False),
                f'<span class="{sort}">{html.escape(line[start:end], quote=False)}</span>',
            ]
            at = end
    return "".join(parts) + html.escape(line[at:], quote=False)


@once_per_version
def highlighted(path: Path) -> tuple[list[str], list[str]]:
    """The lines of a file, as they are and as highlighted HTML."""
    text = path.read_text(encoding="utf-8")
    if any(folder in path.parents for folder in MACHINERY):
        return text.split("\n"), html.escape(text, quote=False).rstrip("\n").split("\n")
    if path.suffix == ".py" and (lines := python_lines(text)) is not None:
        return text.split("\n"), lines
    try:
        lexer = get_lexer_for_filename(path.name, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    return text.split("\n"), highlight(text, lexer, _formatter()).rstrip("\n").split("\n")


def section_html(path: Path, line: int, code: str) -> str | None:
    """A block of code that stands in a file from a line on, as highlighted there; None if it is other code."""
    plain, lines = highlighted(path)
    last = line + code.rstrip("\n").count("\n")
    if plain[line - 1 : last] != code.rstrip("\n").split("\n"):
        return None  # a solution without its hint
    return _python_block(lines[line - 1 : last])


def python_html(code: str) -> str | None:
    """A block of code, highlighted; None if it is no Python that this version knows."""
    lines = python_lines(code.strip("\n") + "\n")
    return None if lines is None else _python_block(lines)


def _python_block(lines: list[str]) -> str:
    shown = "\n".join(lines)
    return f'<div class="language-python highlight"><pre><span></span><code>{shown}\n</code></pre></div>'


def source_html(path: Path) -> tuple[str, int]:
    """A file as highlighted HTML with an anchor for each line, and its number of lines."""
    body = highlighted(path)[1]
    lines = "\n".join(
        f'<a id="L{n}" href="#L{n}" class="line" aria-label="Line {n}"></a>{x}' for n, x in enumerate(body, 1)
    )
    return f'<pre class="source highlight" tabindex="0"><code>{lines}</code></pre>', len(body)


@cache
def _formatter() -> HtmlFormatter:
    return HtmlFormatter(nowrap=True)


LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?")


def linked_files(root: Path, page: Path) -> set[str]:
    """Files of the repository outside docs/ that a Markdown page links to, relative to root."""
    found = set()
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        target = (page.parent / match["path"]).resolve()
        if target.is_file() and target.is_relative_to(root.resolve()):
            path = target.relative_to(root.resolve()).as_posix()
            if not path.startswith("docs/"):
                found.add(path)
    return found


def source_files(root: Path) -> set[str]:
    """Files that have a source page: the snippets, their tests, and what pages link to."""
    found = {"LICENSE"} & {path.name for path in root.iterdir()}
    found |= {
        p.relative_to(root).as_posix()
        for base in ("snippets", "tests/snippets", "tests/labs", "tests/live")
        for p in (root / base).rglob("*.py")
    }
    for page in (root / "docs").rglob("*.md"):
        found |= linked_files(root, page)
    return found
