"""What stands above every page: badges, date of the last change, Verified panel, downloads."""

import html
import re
from datetime import date
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from theme.around.dates import last_change, written
from theme.around.taken import NAME, citation
from theme.page import records, results
from theme.page.exercises import path_of
from theme.page.lengths import minutes
from theme.page.listings import page_url
from theme.page.pages import Page
from theme.page.source import relative


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
    return f'<nav class="badges" aria-label="Badges">{first}{second}</nav>'


def page_date(day: date | None, minutes: int = 0) -> str:
    """The date of the last change, where history tells it, and the minutes to read."""
    parts = [f"Last changed {written(day)}"] if day else []
    parts += [f"{minutes} minutes to read"] if minutes else []
    return f'<p class="page-date">{" · ".join(parts)}</p>' if parts else ""


def _counts(found: dict) -> list[tuple[str, str, str]]:
    """What was counted: section of docs/verified.md that says what it means, number and name, what was found."""
    kinds = [
        ("tests", found["tests"], "test", "run code that this page shows, or check the page itself; all passed"),
        ("equations", found["evaluated"], "equation", "evaluated as printed, and equal to what the code returns"),
        ("equations", found["pinned"], "pinned equation", "read beside the test; a change of the formula fails"),
        ("claims", found["claims"], "claim", "about results, repeated by a test on the recorded numbers"),
        ("shape-comments", found["shape_comments"], "shape comment", "equal to the real sizes while the tests ran"),
        ("exercises", found["exercises"], "exercise", "with a check of your answer, itself tested"),
        ("breakages", found["breakages"], "planted fault", "each noticed by the test that it names"),
    ]
    return [(anchor, f"{count:,} {name}{'s' * (count != 1)}", text) for anchor, count, name, text in kinds if count]


def verified(key: str, report: dict | None, url: str) -> str:
    """The Verified line at the top of a post, which leads to the details at its end."""
    start = '<p class="verified{}">'
    if not report or key not in report["posts"]:
        means = f'<a href="{relative("verified/#not-verified", url)}">What this means</a>'
        return f"{start.format(' verified-none')}not verified in this build. {means}</p>"
    day = written(date.fromisoformat(report["date"]))
    counts = ", ".join(count for _, count, _ in _counts(report["posts"][key]))
    return f'{start.format("")}<strong>Verified</strong> {day}: {counts}. <a href="#verified">Details</a></p>'


def verified_details(key: str, report: dict | None, url: str, lab: dict | None, program: dict | None) -> str:
    """The details of what was verified, for the end of a post; empty in a build without a report."""
    if not report or key not in report["posts"]:
        return ""
    meaning, found = relative("verified/", url), report["posts"][key]
    rows = [(anchor, count, text) for anchor, count, text in _counts(found)]
    for one in found["oracles"]:
        equal = "no difference" if not one["difference"] else f"largest difference {one['difference']:.1e}"
        allowed = f", allowed {one['tolerance']:.0e}" if one["tolerance"] else ""
        rows.append(("oracles", f"Agrees with {html.escape(one['name'])}", equal + allowed))
    if lab:
        again = lab.get("rechecked")
        again = f", re-checked on {written(date.fromisoformat(again))}: numbers unchanged" if again else ""
        rows.append(("runs", "Figures and numbers", f"from a run of {written(date.fromisoformat(lab['date']))}{again}"))
    if program:
        rows.append(("runs", "Output of the program", f"from a run of {written(date.fromisoformat(program['date']))}"))
    list_ = "".join(
        f'<div><dt><a href="{meaning}#{anchor}">{name}</a></dt><dd>{text}</dd></div>' for anchor, name, text in rows
    )
    day = written(date.fromisoformat(report["date"]))
    return (
        '<section class="verified-details" aria-labelledby="verified">'
        '<h2 id="verified">Verified</h2>'
        f"<p>By a run of all tests on {day}, on these very files.</p>"
        f"<dl>{list_}</dl></section>"
    )


GITHUB = "https://github.com/"


def downloads(post: Page, url: str, lab: bool, exercises: bool, repository: str = "") -> str:
    """Links to the post's program, its notebook, the starter of its exercises, and its lab."""
    name, starter = post.name, f"{post.name}_exercises.py"
    links = [f'<a href="{name}.py" download>Program ({name}.py)</a>', f'<a href="{name}.ipynb" download>Notebook</a>']
    if repository.startswith(GITHUB):  # the publishing workflow keeps the notebooks in a branch
        path = f"{repository.removeprefix(GITHUB)}/blob/notebooks/{url}{name}.ipynb"
        links.append(f'<a href="https://colab.research.google.com/github/{path}">Open in Colab</a>')
    links += [f'<a href="{starter}" download>Exercises ({starter})</a>'] if exercises else []
    links += [f'<a href="{relative(page_url(post.meta["module"]), url)}">Source and docstrings</a>']
    links += [f'<a href="{relative(f"labs/{post.key}/", url)}">Lab</a>'] if lab else []
    return f'<div class="downloads">{" ".join(links)}</div>'


def of_post(
    post: Page, root: Path, commit: str | None, report: dict | None, site_url: str = "", repository: str = ""
) -> tuple[str, str, str]:
    """All that stands above and below the heading of a post, and at its end. Its badge leads to its code."""
    code = f"{repository}/blob/HEAD/{post.meta['module']}" if repository else ""
    url, day = f"posts/{post.key}/", last_change(root, commit, paths_shown(post, root))
    second = badge(post.meta["badge"], code or relative(page_url(post.meta["module"]), url))
    lab = (root / f"docs/labs/{post.key}.ipynb").is_file()
    return (
        badges(relative("", url), second),
        page_date(day, minutes(post, root))
        + verified(post.key, report, url)
        + downloads(post, url, lab, (root / path_of(post)).is_file(), repository),
        citation(post, root, day, site_url)
        + verified_details(post.key, report, url, results.load(root, post.key), records.load(root, post.key)),
    )


def of_lab(key: str, post: Page | None, root: Path, commit: str | None) -> tuple[str, str]:
    """All that stands above and below the heading of a lab."""
    url = f"labs/{key}/"
    second = badge(post.meta["badge"], relative(f"posts/{key}/", url)) if post else ""
    day = page_date(last_change(root, commit, [f"docs/labs/{key}.ipynb"]))
    name = key.rpartition("/")[2]
    back = f'<a href="{relative(f"posts/{key}/", url)}">The post</a> ' if post else ""
    links = f'{back}<a href="{name}.ipynb" download>This notebook</a>'
    return badges(relative("", url), second), f'{day}<div class="downloads">{links}</div>'
