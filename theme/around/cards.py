"""The cards of the index, and what search engines show of a post, from the posts' front matter."""

import html
import re
from functools import lru_cache
from pathlib import Path

import markdown

from theme.around.dates import last_change, written
from theme.around.header import badge, paths_shown
from theme.page import late, maths, pictures
from theme.page.pages import Page
from theme.page.source import Source, relative

EXTENSIONS = ["attr_list", "tables", "pymdownx.arithmatex", "theme.page.extension"]
DISPLAYED = re.compile(r'<div class="equation".*?</div>\s*</div>', re.S)


def _description(post: Page, root: Path, url: str) -> str:
    text, whole = post.meta["description"], post.path.read_text(encoding="utf-8")
    line = whole[: whole.index("description:")].count("\n") + 2
    return _rendered(root, post.path.relative_to(root).as_posix(), text, line, url)


@lru_cache(maxsize=256)
def _rendered(root: Path, path: str, text: str, line: int, url: str) -> str:
    source = Source(root, path, text, line, url)
    settings = {"pymdownx.arithmatex": {"generic": True}, "theme.page.extension": {"source": source}}
    return markdown.markdown(text, extensions=EXTENSIONS, extension_configs=settings)


def _picture(root: Path, url: str, settings: dict) -> str:
    path = root / "docs" / settings["file"]
    dark = pictures.dark_version(path)
    versions = [(path, " only-light" if dark else ""), *([(dark, " only-dark")] if dark else [])]
    text = ""
    for file, extra in versions:
        size = " ".join(f'{name}="{value}"' for name, value in pictures.attributes(file).items())
        address = relative(file.relative_to(root / "docs").as_posix(), url)
        text += f'<img class="card-picture{extra}" src="{address}" alt="{html.escape(settings["alt"])}" {size}>'
    return text


def _card(post: Page, root: Path, url: str, commit: str | None) -> str:
    day = last_change(root, commit, paths_shown(post, root))
    address = relative(f"posts/{post.key}/", url)
    title = html.escape(str(post.meta["title"]))
    return (
        f'<li class="card"><p class="card-badge">{badge(post.meta["badge"], address)}</p>'
        f'<h3><a href="{address}">{title}</a></h3>'
        f'<div class="card-description">{_description(post, root, url)}</div>'
        f"{_picture(root, url, post.meta['picture'])}"
        + (f'<p class="card-date">Last changed {written(day)}</p>' if day else "")
        + "</li>"
    )


def summary(post: Page, root: Path) -> str:
    """A post's description in plain text, with formulas in lines as text and without those on display."""
    text = DISPLAYED.sub("…", _description(post, root, ""))
    text = late.PLACE.sub(lambda place: html.escape(maths.plain_text(late.insert(place[0]))), text)
    return " ".join(html.unescape(maths.TAGS.sub("", text)).split())


def cards(posts: list[Page], root: Path, url: str, commit: str | None) -> str:
    """One card a post, in the order of the index."""
    return f'<ul class="cards">{"".join(_card(post, root, url, commit) for post in posts)}</ul>'
