"""The cards of the index, from the posts' front matter."""

import html
from pathlib import Path

import markdown

from theme import figures
from theme.dates import last_change, written
from theme.header import badge, paths_shown
from theme.pages import Page
from theme.source import Source, relative

EXTENSIONS = ["attr_list", "tables", "pymdownx.arithmatex", "theme.extension"]


def _description(source: Source, text: str) -> str:
    settings = {"pymdownx.arithmatex": {"generic": True}, "theme.extension": {"source": source}}
    return markdown.markdown(text, extensions=EXTENSIONS, extension_configs=settings)


def _picture(root: Path, url: str, settings: dict) -> str:
    path = root / "docs" / settings["file"]
    dark = figures.dark_version(path)
    versions = [(path, " only-light" if dark else ""), *([(dark, " only-dark")] if dark else [])]
    text = ""
    for file, extra in versions:
        size = " ".join(f'{name}="{value}"' for name, value in figures.attributes(file).items())
        address = relative(file.relative_to(root / "docs").as_posix(), url)
        text += f'<img class="card-picture{extra}" src="{address}" alt="{html.escape(settings["alt"])}" {size}>'
    return text


def _card(post: Page, root: Path, url: str, commit: str | None) -> str:
    whole = post.path.read_text(encoding="utf-8")
    line = whole[: whole.index("description:")].count("\n") + 2
    source = Source(root, post.path.relative_to(root).as_posix(), post.meta["description"], line, url)
    day = last_change(root, commit, paths_shown(post, root))
    return (
        f'<li class="card"><p class="card-badge">{badge(post.meta["badge"], relative(f"posts/{post.key}/", url))}</p>'
        f'<div class="card-description">{_description(source, post.meta["description"])}</div>'
        f"{_picture(root, url, post.meta['picture'])}"
        + (f'<p class="card-date" data-search-exclude="true">Last changed {written(day)}</p>' if day else "")
        + "</li>"
    )


def cards(posts: list[Page], root: Path, url: str, commit: str | None) -> str:
    """One card a post, in the order of the index."""
    return f'<ul class="cards">{"".join(_card(post, root, url, commit) for post in posts)}</ul>'
