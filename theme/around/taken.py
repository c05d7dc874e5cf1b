"""What readers and machines take from the site: programs, posts as Markdown, llms.txt, how to cite, licences."""

import html
import json
import re
from datetime import date
from functools import cache
from pathlib import Path

from theme.page import records
from theme.page.pages import Page
from theme.page.references import folded

NAME = "Verbatim"
NEEDS = re.compile(r"^pip install .*$", re.M)
ATTACHED = re.compile(r"\(attachment:([^)]+)\)")
FIGURE = re.compile(r"\]\((?:\.\./)+(?P<path>figures/[^)\s]+)\)")


@cache
def owner(root: Path) -> str:
    """Who has the copyright, as LICENSE says: "Copyright (c) 2026 the Verbatim authors"."""
    found = re.search(r"^Copyright \(c\).*$", (root / "LICENSE").read_text(encoding="utf-8"), re.M)
    return found[0] if found else f"Copyright (c) the {NAME} authors"


def version(day: date | None) -> str:
    """The version of a page: the date of its last change."""
    return f"version of {day.day} {day:%B %Y}" if day else "of an unknown version"


def head(post: Page, root: Path, day: date | None, site_url: str) -> list[str]:
    """What a program or notebook says of itself: title, origin, version, what it needs, licence."""
    page = f"{site_url.rstrip('/')}/posts/{post.key}/" if site_url else f'the page "{post.meta["title"]}"'
    needs = NEEDS.search(post.text)
    return [
        str(post.meta["title"]),
        f"The program of {page} of {NAME}, {version(day)}.",
        *([f"It needs Python 3.11 or newer, and: {needs[0]}"] if needs else []),
        f"{owner(root)}. MIT License. Data and weights by others have their own terms: see LICENSE on the site.",
    ]


def with_head(program: str, lines: list[str]) -> str:
    """A program below its head."""
    return "".join(f"# {line}\n" for line in lines) + "\n" + program


def with_head_and_pictures(book: dict, lines: list[str], post: Page, root: Path) -> str:
    """The file of a notebook with its head, and a cell behind the program that shows the pictures which it saved."""
    record, cells = records.load(root, post.key), list(book["cells"])
    said = {"cell_type": "markdown", "id": "head", "metadata": {}, "source": "\n".join(f"> {line}  " for line in lines)}
    cells.insert(0, said)
    if record and record["pictures"]:
        names = "".join(f"display(Image({name!r}))\n" for name in record["pictures"])
        code = f"from IPython.display import Image, display\n\n{names}".rstrip("\n")
        cell = {"cell_type": "code", "id": "pictures", "metadata": {"tags": ["pictures"]}, "execution_count": None}
        last = max(at for at, one in enumerate(cells) if one["cell_type"] == "code")
        cells.insert(last + 1, cell | {"outputs": [], "source": code})
    return json.dumps(book | {"cells": cells}, indent=1)


def as_markdown(book: dict, post: Page, site_url: str) -> str:
    """A post as plain Markdown: numbers filled in, code included, links and pictures with whole addresses."""
    figures = {Path(found["path"]).name: found["path"] for found in FIGURE.finditer(post.text)}
    parts = []
    for cell in book["cells"]:
        text = cell["source"]
        if cell["cell_type"] == "code":
            text = f"```python\n{text}\n```"
        parts.append(ATTACHED.sub(lambda found: f"({site_url.rstrip('/')}/{figures.get(found[1], found[1])})", text))
    return "\n\n".join(parts) + "\n"


def llms(posts: list[tuple[Page, str]], description: str, site_url: str) -> str:
    """llms.txt: what the site is, and each post's Markdown with its summary. Args: posts, each with its summary."""
    base = f"{site_url.rstrip('/')}/" if site_url else "/"
    lines = [f"- [{post.meta['title']}]({base}posts/{post.key}/index.md): {summary}" for post, summary in posts]
    return f"# {NAME}\n\n> {description}\n\n## Posts\n\n" + "\n".join(lines) + "\n"


def citation(post: Page, root: Path, day: date | None, site_url: str) -> str:
    """How to cite a post: BibTeX, folded."""
    author = owner(root).partition(" the ")[2] or f"{NAME} authors"
    fields = {"title": post.meta["title"], "author": f"{{The {author}}}"}
    fields |= {"year": day.year, "note": version(day).replace("v", "V", 1)} if day else {}
    fields |= {"url": f"{site_url.rstrip('/')}/posts/{post.key}/"} if site_url else {}
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    text = html.escape(f"@misc{{{NAME.lower()}_{post.name.lower()},\n{lines}\n}}", quote=False)
    block = f'<div class="highlight"><pre><code>{text}\n</code></pre></div>'
    return f'<div class="cite">{folded(block, "Cite this page")}</div>'
