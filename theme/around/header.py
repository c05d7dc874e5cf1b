"""What stands above every page: badges, date of the last change, Verified panel, downloads."""

import html
import re
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from theme.around.dates import last_change, written
from theme.page import results
from theme.page.listings import page_url
from theme.page.pages import Page
from theme.page.source import relative

NAME = "Verbatim"


@cache
def _mark() -> str:
    """GitHub's mark, from the icons that come with Material."""
    icon = Path(find_spec("material").origin).parent / "templates/.icons/simple/github.svg"
    shape = re.search(r'viewBox="([^"]*)".*?<path d="([^"]*)"', icon.read_text(encoding="utf-8"), re.S)
    return f'<svg class="badge-mark" viewBox="{shape[1]}" aria-hidden="true"><path d="{shape[2]}"/></svg>'


def badge(settings: dict, url: str, extra: str = "") -> str:
    """A badge that links to url; settings are label, message and grey."""
    classes = f"badge{' badge-grey' if settings.get('grey') else ''}{extra}"
    message = settings.get("message")
    parts = [f'<span class="badge-label">{html.escape(str(settings["label"]))}</span>']
    parts += [f'<span class="badge-message">{html.escape(str(message))}</span>'] if message else []
    return f'<a class="{classes}" href="{url}">{_mark()}{" ".join(parts)}</a>'


def paths_shown(post: Page, root: Path) -> list[str]:
    """The post's file and the snippet files that it shows."""
    return [post.path.relative_to(root).as_posix(), *sorted({path for path, _ in post.includes})]


def badges(home: str, second: str = "") -> str:
    """The row of badges: Home, at the address given ("./" on the page itself), then the page's own."""
    first = badge({"label": "Home", "message": NAME}, home, " badge-home")
    if home == "./":
        first = first.replace("<a ", '<a aria-current="page" ', 1)
    return f'<nav class="badges" aria-label="Badges" data-search-exclude="true">{first}{second}</nav>'


def page_date(day: date | None) -> str:
    """The date of the last change, where history tells it."""
    return f'<p class="page-date" data-search-exclude="true">Last changed {written(day)}</p>' if day else ""


def _rows(report: dict, run: dict | None) -> list[tuple[str, str]]:
    rows = [
        ("Tests passed", f"{report['tests']}"),
        ("Equations tested", f"{report['equations']}"),
        ("Shape comments checked", f"{report['shape_comments']}"),
    ]
    for oracle in report["oracles"]:
        rows.append(
            (
                f"Agrees with {oracle['name']}",
                f"largest difference {oracle['difference']:.1e}, allowed {oracle['tolerance']:.0e}",
            )
        )
    if run:
        again = run.get("rechecked")
        again = f", re-checked on {written(date.fromisoformat(again))}: numbers unchanged" if again else ""
        rows.append(("Figures and numbers", f"run of {written(date.fromisoformat(run['date']))}{again}"))
    return rows


def verified(key: str, report: dict | None, run: dict | None) -> str:
    """The Verified panel of a post, from the report of a complete test run."""
    start = '<aside class="verified{}" aria-label="Verified" data-search-exclude="true">'
    if not report or key not in report["posts"]:
        return start.format(" verified-none") + "<p>not verified in this build</p></aside>"
    rows = _rows(report["posts"][key], run)
    list_ = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{text}</dd></div>" for name, text in rows)
    day = written(date.fromisoformat(report["date"]))
    summary = f"Verified {day}: {', '.join(f'{text} {name.lower()}' for name, text in rows[:3])}"
    return start.format("") + f"<details><summary>{summary}</summary><dl>{list_}</dl></details></aside>"


def downloads(post: Page, url: str, lab: bool) -> str:
    """Links to the post's program, its notebook and its lab."""
    name = post.key.rpartition("/")[2]
    links = [f'<a href="{name}.py" download>Program ({name}.py)</a>', f'<a href="{name}.ipynb" download>Notebook</a>']
    links += [f'<a href="{relative(page_url(post.meta["module"]), url)}">Source and docstrings</a>']
    links += [f'<a href="{relative(f"labs/{post.key}/", url)}">Lab</a>'] if lab else []
    return f'<div class="downloads" data-search-exclude="true">{" ".join(links)}</div>'


def of_post(post: Page, root: Path, commit: str | None, report: dict | None) -> str:
    """All that stands above a post, except for its heading."""
    url = f"posts/{post.key}/"
    second = badge(post.meta["badge"], relative(page_url(post.meta["module"]), url))
    lab = (root / f"docs/labs/{post.key}.ipynb").is_file()
    return (
        badges(relative("", url), second),
        page_date(last_change(root, commit, paths_shown(post, root)))
        + verified(post.key, report, results.load(root, post.key))
        + downloads(post, url, lab),
    )


def of_lab(key: str, post: Page | None, root: Path, commit: str | None) -> tuple[str, str]:
    """All that stands above and below the heading of a lab."""
    url = f"labs/{key}/"
    second = badge(post.meta["badge"], relative(f"posts/{key}/", url)) if post else ""
    day = page_date(last_change(root, commit, [f"docs/labs/{key}.ipynb"]))
    name = key.rpartition("/")[2]
    back = f'<a href="{relative(f"posts/{key}/", url)}">The post</a> ' if post else ""
    links = f'{back}<a href="{name}.ipynb" download>This notebook</a>'
    return badges(relative("", url), second), f'{day}<div class="downloads" data-search-exclude="true">{links}</div>'
