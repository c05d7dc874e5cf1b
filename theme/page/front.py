"""The front matter of posts: what the index and the checks read."""

from collections.abc import Iterator
from pathlib import Path

from theme.page import reading
from theme.page.pages import Page, key_line, posts


def front_matter(root: Path) -> list[str]:
    """Posts whose front matter lacks what the index and the checks read."""
    problems, pages = [], posts(root)
    for page in pages:
        badge, picture, module = (page.meta.get(key) for key in ("badge", "picture", "module"))
        for key in ("title", "description"):
            if not page.meta.get(key):
                problems.append(f"{key_line(page, root, key)}: no {key}. Write it in the front matter")
        if not isinstance(badge, dict) or not {"label", "message"} <= badge.keys():
            mend = "Write badge: {label: DDPM, message: Diffusion Models}"
            problems.append(f"{key_line(page, root, 'badge')}: no badge. {mend}")
        if not isinstance(picture, dict) or not (root / "docs" / str(picture.get("file"))).is_file():
            mend = "Write picture: {file: figures/…, alt: …}"
            problems.append(f"{key_line(page, root, 'picture')}: no picture, or one that is not below docs/. {mend}")
        if not isinstance(module, str) or not (root / module).is_file():
            mend = "Write module: snippets/….py"
            problems.append(f"{key_line(page, root, 'module')}: the module {module} does not exist. {mend}")
        elif module not in {path for path, _ in page.includes}:
            mend = "Include its sections"
            problems.append(f"{key_line(page, root, 'module')}: the page shows nothing of its module {module}. {mend}")
        problems += [f"{key_line(page, root, 'first')}: {wrong}" for wrong in _first(page, pages)]
    return problems


def _first(page: Page, pages: list[Page]) -> Iterator[str]:
    """What is wrong with the posts that a post says to read first."""
    known = {one.key: one for one in pages}
    if not isinstance(page.meta.get("first"), dict):
        yield 'what to read first is not said. Write first: {Diffusion: "up to its loss"}, or first: {} for nothing'
        return
    for key in reading.needs(page):
        if key not in known:
            yield f"there is no post {key} to read first. The posts are {', '.join(known)}"
        elif page.key in reading.all_needs(known[key], pages):
            yield f"{key} is to be read first, and says the same of this post. Take one of them out"
    for notation, sentence in ((reading.FIRST, reading.before), (reading.NEXT, reading.after)):
        start = f"**{notation[3:-3].capitalize()}:**"
        if (found := page.text.count(start)) != bool(sentence(page, pages)):
            yield f"{start} is on the page {found} times. Write {notation} in one place, and nothing by hand"
