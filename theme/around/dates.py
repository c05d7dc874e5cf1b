"""Date of the last change of files, from the history; none where the history is missing."""

import subprocess
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def _newest(root: Path, head: str) -> dict[str, str]:
    """Date of the newest commit that touched each file, as of the commit head."""
    log = _git(root, "-c", "core.quotePath=false", "log", "--format=%x00%cs", "--name-only", "--relative", head) or ""
    found = {}
    for commit in log.split("\0")[1:]:
        day, *paths = commit.strip().split("\n")
        for path in filter(None, paths):
            found[path] = max(day, found.get(path, day))
    return found


def head(root: Path) -> str | None:
    """The current commit, or None without git, without a commit, and on a shallow clone."""
    answer = _git(root, "rev-parse", "--is-shallow-repository", "HEAD")
    shallow, _, commit = (answer or "true").partition("\n")
    return commit.strip() if shallow == "false" else None


def last_change(root: Path, commit: str | None, paths: Iterable[str]) -> date | None:
    """Date of the newest commit that touched one of the paths (relative to root)."""
    newest = _newest(root, commit) if commit else {}
    days = [newest[path] for path in paths if path in newest]
    return date.fromisoformat(max(days)) if days else None


def written(day: date) -> str:
    """A date as HTML: 23 November 2026."""
    return f'<time datetime="{day}">{day.day} {day:%B %Y}</time>'
