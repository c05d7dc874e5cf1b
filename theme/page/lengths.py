"""How much code of a page lies open, which a reader has to take in at once, and how long a page takes to read."""

import re
from functools import lru_cache
from pathlib import Path

from theme.page.code import sections
from theme.page.pages import Page, expand, posts
from theme.page.source import DISPLAYED, FENCE, place

BLOCKS, LINES = 30, 600
A_MINUTE = {
    "words": 200,
    "lines": 25,
    "formulas": 6,
}  # read; lines of open code, formulas on display
OPEN = re.compile(r"```(?:python|diff)(?!.*(?:fold|solution) *\n)")
NOT_READ = re.compile(r"\{\{.*?\}\}|(?<=\])\([^)]*\)")


def problems(root: Path) -> list[str]:
    """Pages with more open blocks or lines of code than one page should have."""
    found, (have, _) = [], sections(root)
    for page in posts(root):
        if any(include not in have for include in page.includes):
            continue  # another check says so
        opened = open_lines(page.text, root)
        if len(opened) > BLOCKS or sum(opened) > LINES:
            given = f"{len(opened)} blocks of code with {sum(opened)} lines lie open"
            mend = f"At most {BLOCKS} with {LINES} may: fold some (```python fold), or make two pages of it"
            found.append(f"{place(page.path, root, page.first_line)}: {given}. {mend}")
    return found


def open_lines(text: str, root: Path) -> list[int]:
    """The lines of each block of code of a page's text that is not folded."""
    return _open_lines(expand(text, root))


@lru_cache(maxsize=64)
def _open_lines(text: str) -> list[int]:
    return [match[0].count("\n") - 1 for match in FENCE.finditer(text) if OPEN.match(match[0])]


def minutes(post: Page, root: Path) -> int:
    """How long a post takes to read, in steps of five minutes, exercises and folded code aside."""
    text = post.text.partition("\n## Exercises\n")[0]
    lines = sum(open_lines(post.text, root))
    text = FENCE.sub("", text)
    formulas = len(DISPLAYED.findall(text))
    words = len(re.findall(r"\w{2,}", NOT_READ.sub(" 00 ", DISPLAYED.sub("", text))))
    found = {"words": words, "lines": lines, "formulas": formulas}
    return max(5, 5 * round(sum(count / A_MINUTE[kind] for kind, count in found.items()) / 5))
