"""The report of the last complete test run, which fills the Verified panels."""

import hashlib
import json
import re
from datetime import date
from pathlib import Path

from theme.page.equations import labels
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

    Args: tests, one dict for each test with id, equations, those it evaluated, and oracles; proved, lines of the shape
    comments that hold, by module.
    """
    report = {"tree": tree_hash(root), "date": date.today().isoformat(), "posts": {}}
    for page in posts(root):
        mine = [test for test in tests if belongs(test["id"], page)]
        checked, evaluated = ({one for test in tests for one in test[kind]} for kind in ("equations", "evaluated"))
        numbered = {label for label, _ in labels(page)} & checked
        oracles: dict[str, dict] = {}
        for oracle in (oracle for test in mine for oracle in test["oracles"]):
            known = oracles.setdefault(oracle["name"], oracle)
            oracles[oracle["name"]] = max(known, oracle, key=lambda one: one["difference"])
        report["posts"][page.key] = {
            "tests": len(mine),
            "equations": len(numbered),
            "evaluated": len(numbered & evaluated),
            "pinned": len(numbered - evaluated),
            "shape_comments": sum(
                len(proved.get(path, set()) & shown(root, path, names)) for path, names in used(page)
            ),
            "oracles": [oracles[name] for name in sorted(oracles)],
        }
    (root / REPORT).parent.mkdir(exist_ok=True)
    (root / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def used(page: Page) -> list[tuple[str, set[str]]]:
    """The modules that a page shows, each with the names of the sections shown; its own module first."""
    found: dict[str, set[str]] = {page.meta.get("module", ""): set()}
    for path, section in page.includes:
        found.setdefault(path, set()).add(section)
    return list(found.items())


def belongs(test: str, page: Page) -> bool:
    """Whether a test (pytest's id) is about a page: of a module that it shows, of the page itself, or of its lab."""
    path, _, rest = test.partition("::")
    if path.startswith("tests/snippets/"):
        module = re.sub(r"test_(\w+\.py)$", r"\1", path.removeprefix("tests/"))
        return any(module == shown for shown, _ in used(page))
    if path.startswith("tests/labs/") and plain(re.sub(r"test_(\w+)\.py$", r"\1", path[11:])) == plain(page.key):
        return True
    return path.startswith(("tests/pages/", "tests/labs/")) and rest.endswith(f"[{page.key}]")


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
