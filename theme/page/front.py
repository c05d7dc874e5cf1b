"""The front matter of posts: what the index and the checks read."""

from pathlib import Path

from theme.page.pages import key_line, posts


def front_matter(root: Path) -> list[str]:
    """Posts whose front matter lacks what the index and the checks read."""
    problems = []
    for page in posts(root):
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
    return problems
