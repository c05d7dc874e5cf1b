"""Recorded runs of the pages' programs, docs/results/<post>.program.json, shown by {{ program }} on its own line."""

import html
import json
import re
from datetime import date
from pathlib import Path

from theme.page.pages import Page
from theme.page.pictures import ALONE, attributes
from theme.page.source import line_of, once_per_version, relative
from theme.page.source import place as at

NOTATION = re.compile(r"^\{\{ *program *\}\}$", re.M)


@once_per_version
def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def load(root: Path, key: str) -> dict | None:
    """The recorded run of a post's program, or None before the first one."""
    path = root / f"docs/results/{key}.program.json"
    return _read(path) if path.is_file() else None


def place(post: Page, root: Path) -> str:
    """File and line of a post's {{ program }}; line 1 where there is none."""
    found = NOTATION.search(post.text)
    return at(post.path, root, post.first_line + line_of(post.text, found.start()) - 1 if found else 1)


def picture(root: Path, key: str, name: str) -> Path:
    """Where a picture is kept that a post's program saves."""
    return root / f"docs/figures/{key}/program/{name}"


def alternative_text(post: Page, record: dict, name: str) -> str:
    """What front matter says a picture shows: program: {alt: "…"}, or with several pictures {alt: {a.png: "…"}}."""
    said = (post.meta.get("program") or {}).get("alt")
    said = said.get(name) if isinstance(said, dict) else said if len(record["pictures"]) == 1 else None
    return said.strip() if isinstance(said, str) else ""


def blocks(post: Page, root: Path, url: str) -> dict[str, str]:
    """The HTML that {{ program }} stands for: what the program prints, and the pictures that it saves."""
    record = load(root, post.key)
    if record is None:
        return {"program": f"<p>No run is recorded. Run: make record POST={post.key}</p>"}
    text = html.escape("\n".join(record["printed"]), quote=False)
    shown = ""
    for name in record["pictures"]:
        path, alt = picture(root, post.key, name), html.escape(alternative_text(post, record, name))
        size = " ".join(f'{key}="{value}"' for key, value in attributes(path).items()) if path.is_file() else ""
        address = relative(path.relative_to(root / "docs").as_posix(), url)
        link = " ".join(f'{key}="{value}"' for key, value in ALONE.items())
        shown += f'<p><a {link} href="{address}"><img src="{address}" alt="{alt}" {size}></a></p>'
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in record["pictures"])
    saved = f", and the picture{'s' * (len(record['pictures']) > 1)} that it saves: {names}" if names else ""
    day = date.fromisoformat(record["date"])
    caption = f"Printed by this page's program ({record['seconds']:.0f} s on one thread, {day.day} {day:%B %Y}){saved}."
    figure = f'<pre class="output" tabindex="0">{text}</pre>{shown}<figcaption>{caption}</figcaption>'
    return {"program": f'<figure class="program">{figure}</figure>'}
