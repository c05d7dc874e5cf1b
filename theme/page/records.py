"""Recorded runs of the pages' programs, docs/results/<post>.program.json, shown by {{ program }} on its own line."""

import html
import json
import re
from datetime import date
from pathlib import Path

from theme.page import pictures
from theme.page.pages import Page, key_line
from theme.page.source import SourceError, once_per_version, relative

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
    line = post.first_line + post.text.count("\n", 0, found.start()) if found else 1
    return f"{post.path.relative_to(root).as_posix()}:{line}"


def picture(root: Path, key: str, name: str) -> Path:
    """Where a picture is kept that a post's program saves."""
    return root / f"docs/figures/{key}/program/{name}"


def blocks(post: Page, root: Path, url: str) -> dict[str, str]:
    """The HTML that {{ program }} stands for: what the program prints, and the pictures that it saves."""
    if not NOTATION.search(post.text):
        return {}
    record = load(root, post.key)
    if record is None:
        mend = f"Run: make record POST={post.key}"
        raise SourceError(f"{place(post, root)}: the page's program has no recorded run. {mend}")
    text = html.escape(record["printed"].strip("\n"), quote=False)
    pictures = "".join(_picture(post, root, url, name, record) for name in record["pictures"])
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in record["pictures"])
    saved = f", and the picture{'s' * (len(record['pictures']) > 1)} that it saves: {names}" if names else ""
    day = date.fromisoformat(record["date"])
    caption = f"Printed by this page's program ({record['seconds']:.0f} s on one thread, {day.day} {day:%B %Y}){saved}."
    return {
        "program": f'<figure class="program"><pre class="output" tabindex="0">{text}</pre>{pictures}'
        f"<figcaption>{caption}</figcaption></figure>"
    }


def _picture(post: Page, root: Path, url: str, name: str, record: dict) -> str:
    alt = (post.meta.get("program") or {}).get("alt")
    alt = alt.get(name) if isinstance(alt, dict) else alt if len(record["pictures"]) == 1 else None
    if not isinstance(alt, str) or not alt.strip():
        mend = f'Write program: {{alt: {{{name}: "what it shows"}}}}'
        raise SourceError(f"{key_line(post, root, 'program')}: the picture {name} has no alternative text. {mend}")
    path = picture(root, post.key, name)
    if not path.is_file():
        where = path.relative_to(root).as_posix()
        raise SourceError(f"{place(post, root)}: there is no {where}. Run: make record POST={post.key}")
    size = " ".join(f'{key}="{value}"' for key, value in pictures.attributes(path).items())
    address = relative(path.relative_to(root / "docs").as_posix(), url)
    return f'<p><img src="{address}" alt="{html.escape(alt)}" {size}></p>'
