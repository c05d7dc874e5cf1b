"""How much code of a page lies open: what a reader has to take in at once."""

from pathlib import Path

from theme.page.code import sections
from theme.page.pages import expand, posts
from theme.page.source import TOKEN, place

BLOCKS, LINES = 30, 600


def problems(root: Path) -> list[str]:
    """Pages with more open blocks or lines of code than one page should have."""
    found, (have, _) = [], sections(root)
    for page in posts(root):
        if any(include not in have for include in page.includes):
            continue  # another check says so
        fences = [match for match in TOKEN.finditer(expand(page.text, root)) if match["mark"]]
        opened = [
            match["body"].count("\n")
            for match in fences
            if match["info"].startswith(("python", "diff")) and not match["info"].strip().endswith(("fold", "solution"))
        ]
        if len(opened) > BLOCKS or sum(opened) > LINES:
            given = f"{len(opened)} blocks of code with {sum(opened)} lines lie open"
            mend = f"At most {BLOCKS} with {LINES} may: fold some (```python fold), or make two pages of it"
            found.append(f"{place(page.path, root, page.first_line)}: {given}. {mend}")
    return found
