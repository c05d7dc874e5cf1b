"""The report of the last complete test run, which fills the Verified panels."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from pathlib import Path

from theme.page.breakages import breakages
from theme.page.claims import claims
from theme.page.equations import labels
from theme.page.exercises import exercises, path_of
from theme.page.pages import ROOT, Page, posts

REPORT = Path(".verified/report.json")
TESTED = ("snippets", "tests", "docs/posts", "docs/labs", "docs/results")


def tree_hash(root: Path = ROOT) -> str:
    """A hash of every file that the report speaks of: the report of another tree says nothing about this one."""
    total = hashlib.sha256()
    for folder in TESTED:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
                total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
                total.update(path.read_bytes())
    return total.hexdigest()


def load(root: Path = ROOT) -> dict | None:
    """The report, or None where there is none or the tree has changed since."""
    try:
        report = json.loads((root / REPORT).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return report if report.get("tree") == tree_hash(root) else None


def write(root: Path, tests: list[dict], proved: dict[str, set[int]]) -> dict:
    """Write the report of a run in which everything passed, and return it.

    Args: tests, one dict for each test: id (pytest's), and properties, pairs of a kind and a value: "equation",
    "evaluated" and "claim" (ids), "page" (key), "oracle" (name, difference, tolerance), "entered" (lines at which
    functions begin, by path); proved, lines of the shape comments that hold, by path.
    """
    report = {"tree": tree_hash(root), "date": date.today().isoformat(), "posts": {}}
    for page in posts(root):
        lines = {path: shown(root, path, names) for path, names in used(page).items()}
        mine = [test for test in tests if belongs(test, page, lines)]
        oracles: dict[str, dict] = {}
        for oracle in (value for test in mine if about(test["id"]) in lines for value in values(test, "oracle")):
            known = oracles.setdefault(oracle["name"], oracle)
            oracles[oracle["name"]] = max(known, oracle, key=lambda one: one["difference"])
        kinds = ("equation", "evaluated", "claim")
        checked = {kind: {value for test in tests for value in values(test, kind)} for kind in kinds}
        numbered = {label for label, _ in labels(page)} & checked["equation"]
        report["posts"][page.key] = {
            "tests": len(mine),
            "equations": len(numbered),
            "evaluated": len(numbered & checked["evaluated"]),
            "pinned": len(numbered - checked["evaluated"]),
            "claims": sum(mark.id in checked["claim"] for mark in claims([page], root)),
            "exercises": len(exercises(path_of(page), root)) if (root / path_of(page)).is_file() else 0,
            "breakages": len(breakages(page, root)[0]),
            "shape_comments": sum(len(proved.get(path, set()) & here) for path, here in lines.items()),
            "oracles": [oracles[name] for name in sorted(oracles)],
        }
    (root / REPORT).parent.mkdir(exist_ok=True)
    (root / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def values(test: dict, kind: str) -> list:
    """What a test's properties say of one kind."""
    return [value for name, value in test["properties"] if name == kind]


def used(page: Page) -> dict[str, set[str]]:
    """The modules that a page shows, each with the names of the sections shown."""
    found: dict[str, set[str]] = {}
    for path, section in page.includes:
        found.setdefault(path, set()).add(section)
    return found


def pages_of(parameters: Iterable) -> Iterator[str]:
    """The posts, by key, that a test's parameters name: as a page, by its key, or by an address of the site."""
    for value in parameters:
        name = value.key if isinstance(value, Page) else value
        address = re.fullmatch(r"(?:(?:posts|labs)/)?(.+?)/?", name) if isinstance(name, str) else None
        if address and address[1] in keys():
            yield address[1]


@cache
def keys() -> set[str]:
    """The keys of all posts."""
    return {page.key for page in posts()}


def belongs(test: dict, page: Page, lines: dict[str, set[int]]) -> bool:
    """Whether a test is about a page: it has it as a parameter, is of its lab, or enters a function that it shows."""
    lab = re.fullmatch(r"tests/labs/(?:.*/)?test_(\w+)\.py", test["id"].partition("::")[0])
    if page.key in values(test, "page") or (lab and plain(lab[1]) in (plain(page.key), plain(page.path.stem))):
        return True
    entered = ((path, line) for one in values(test, "entered") for path, begins in one.items() for line in begins)
    return any(line in lines.get(path, ()) for path, line in entered)


def about(test: str) -> str:
    """The module that a test (pytest's id) is about, by its own path."""
    path = test.partition("::")[0].removeprefix("tests/")
    return re.sub(r"test_(\w+\.py)$", r"\1", path)


def plain(name: str) -> str:
    """A key or a path in letters and digits only, to compare them."""
    return re.sub(r"\W|_", "", name).lower()


def shown(root: Path, path: str, sections: set[str]) -> set[int]:
    """The lines of a module inside the named sections."""
    lines, open_sections = set(), set()
    if not (root / path).is_file():
        return lines
    for number, line in enumerate((root / path).read_text(encoding="utf-8").split("\n"), 1):
        if found := re.match(r"\s*# --8<-- \[(start|end):([\w-]+)\]", line):
            (open_sections.add if found[1] == "start" else open_sections.discard)(found[2])
        elif open_sections & sections:
            lines.add(number)
    return lines
