r"""Numbered equations: \label{name} in a formula of a post, @pytest.mark.equation("name") on its test."""

import re
from collections.abc import Iterator
from pathlib import Path

from theme.page import marks
from theme.page.marks import Mark
from theme.page.pages import Page, posts
from theme.page.source import DISPLAYED, FENCE, TOKEN, Source, blank

LABEL = re.compile(r"\\label\{([^}]*)\}")


def displays(page: Page) -> list[tuple[str, int, str]]:
    r"""The numbered equations of a page: each \label inside a display formula, its line in the file, and the LaTeX."""
    text = blank(FENCE, page.text)
    found = [(m[1], d.start() + m.start(), d[0][2:-2]) for d in DISPLAYED.finditer(text) for m in LABEL.finditer(d[0])]
    return [(label, page.first_line + text.count("\n", 0, at), tex) for label, at, tex in found]


def labels(page: Page) -> list[tuple[str, int]]:
    """The labels of a page's numbered equations, with their lines."""
    return [(label, line) for label, line, _ in displays(page)]


def equations(pages: list[Page], root: Path) -> list[Mark]:
    """The numbered equations of all posts."""
    return [
        Mark(name, number, page.path.relative_to(root).as_posix(), line)
        for page in pages
        for number, (name, line) in enumerate(labels(page), 1)
    ]


def written(root: Path) -> list[str]:
    """Labels that stand outside of a formula, are no ids, or stand twice; display formulas that Markdown would miss."""
    pages = posts(root)
    problems = marks.wrong_ids(equations(pages, root), "equation")
    for page in pages:
        source = Source(root, page.path.relative_to(root).as_posix(), page.text, page.first_line)
        problems += [str(error) for error in _wrong(source)]
    return problems


def _wrong(source: Source) -> Iterator[Exception]:
    rest = blank(DISPLAYED, blank(FENCE, source.text))
    if outside := LABEL.search(rest):
        yield source.error(outside.start(), "a \\label outside of a formula. Put it between $$ and $$")
    for match in TOKEN.finditer(source.text):
        if match["display"] is None:
            continue
        before, after = match.string[: match.start()], match.string[match.end() :]
        last, following = before.rpartition("\n")[2], after.partition("\n")
        alone = not last.strip() and not following[0].strip()
        above = before[: len(before) - len(last)].rstrip(" ")
        if not alone or not (above == "" or above.endswith("\n\n")) or following[2].partition("\n")[0].strip():
            yield source.error(match.start(), "a formula between $$ and $$ needs a blank line above and below")
        if "\n\n" in match["display"]:
            yield source.error(match.start(), "a blank line inside a formula. Remove it, or close the formula with $$")
        if len(LABEL.findall(match["display"])) > 1:
            yield source.error(match.start(), "two labels in one formula. Keep one")


def tested(root: Path) -> list[str]:
    """Numbered equations without a test, and tests' markers without an equation."""
    write = "\\label{…} in the formula"
    return marks.without_partner(equations(posts(root), root), root, "equation", write)
