"""`make check`: the tests that a change touches, within a minute.

The last complete run left a map, .verified/map.json: of each test its seconds, the functions of snippets/ that it
entered, and its page. From it come the tests of changed functions, the quickest first; beside them the checks of the
pages concerned. What does not fit into the time is counted, and left to `make test`.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from theme.page.pages import ROOT, Page, posts

MAP = Path(".verified/map.json")
BUDGET = 40  # seconds of tests; to start Python and import torch takes the rest of the minute
HUNK = re.compile(r"^\+\+\+ b/(?P<path>.*)$|^@@ -\S+ \+(?P<first>\d+)(?:,(?P<count>\d+))? @@", re.M)
OF_A_PAGE = (("posts", "md"), ("labs", "ipynb"), ("results", "json"))
SOURCES = "tests/pages/test_sources.py"


def functions(source: str) -> dict[str, tuple[int, int]]:
    """First and last line of each function and class at the top of a module, by its name."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {
        node.name: (min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno) for node in nodes
    }


def names(source: str, lines: Iterable[int]) -> set[str]:
    """The functions and classes that lines of a module belong to; "" for a line outside of all."""
    known = functions(source)
    return {next((name for name, (a, b) in known.items() if a <= line <= b), "") for line in lines}


def write_map(root: Path, tests: list[dict]) -> None:
    """Keep what tests entered. Args: tests, each with id, seconds and properties, as `theme.around.report` has them."""
    sources: dict[str, str] = {}
    known = {}
    for test in tests:
        entered: dict[str, list[str]] = {}
        for path, lines in (one for kind, value in test["properties"] if kind == "entered" for one in value.items()):
            source = sources.setdefault(path, (root / path).read_text(encoding="utf-8"))
            entered[path] = sorted(names(source, lines) - {""})
        pages = [value for kind, value in test["properties"] if kind == "page"]
        known[test["id"]] = {"seconds": round(test["seconds"], 2), "entered": entered, "pages": pages}
    (root / MAP).parent.mkdir(exist_ok=True)
    (root / MAP).write_text(json.dumps(known), encoding="utf-8")


def changed(root: Path) -> dict[str, set[int]]:
    """The lines of each file that differ from the last commit; of a new file, none."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True).stdout

    found, path = {name: set() for name in git("ls-files", "-o", "--exclude-standard").split("\n") if name}, ""
    for hunk in HUNK.finditer(git("diff", "-U0", "--no-color", "--no-ext-diff", "--relative", "HEAD")):
        path = hunk["path"] or path
        lines = found.setdefault(path, set())
        if hunk["first"]:
            lines |= set(range(int(hunk["first"]), int(hunk["first"]) + max(int(hunk["count"] or 1), 1)))
    return found


def concerned(changes: dict[str, set[int]], pages: list[Page]) -> list[Page]:
    """The pages whose text, code, lab or results changed."""
    return [
        page
        for page in pages
        if {f"docs/posts/{page.key}.md", f"docs/labs/{page.key}.ipynb", f"docs/results/{page.key}.json"}
        & changes.keys()
        or any(path in changes for path, _ in page.includes)
    ]


def chosen(root: Path, changes: dict[str, set[int]], known: dict) -> tuple[list[str], int]:
    """What pytest is to run, and how many further tests the change touches."""
    touched, wanted, files = concerned(changes, posts(root)), {}, []
    for path, lines in changes.items():
        mirror = re.sub(r"([^/]+)\.py$", r"test_\1.py", f"tests/{path}")
        if path.startswith("snippets/") and path.endswith(".py") and (root / path).is_file():
            mine = names((root / path).read_text(encoding="utf-8"), lines)
            for test, one in known.items():
                entered = set(one["entered"].get(path, ()))
                if entered & mine or (entered and "" in mine):
                    wanted[test] = one["seconds"]
            if not known and (root / mirror).is_file():
                files.append(mirror)
        elif re.search(r"(^|/)test_\w+\.py$", path) and (root / path).is_file():
            files.append(path)
        elif path.startswith("theme/"):
            files += ["tests/site/test_built.py", "tests/site/test_references.py"]
    keys = {page.key for page in touched}
    for test, one in known.items():
        if keys & set(one["pages"]) or (keys and test.startswith(SOURCES)):
            wanted[test] = one["seconds"]
    if changes and not known:
        files.append(SOURCES)
    picked, total = [], 0.0
    for test, seconds in sorted(wanted.items(), key=lambda one: one[1]):
        inside = test.partition("::")[0] in files
        if not inside and total + seconds <= BUDGET and (root / test.partition("::")[0]).is_file():
            picked.append(test)
            total += seconds
    left = sum(test not in picked and test.partition("::")[0] not in files for test in wanted)
    return [*dict.fromkeys(files), *picked], left


def main() -> int:
    """Run what the change since the last commit touches."""
    changes = changed(ROOT)
    known = json.loads((ROOT / MAP).read_text(encoding="utf-8")) if (ROOT / MAP).is_file() else {}
    tests, left = chosen(ROOT, changes, known)
    if not tests:
        print("Nothing changed that a test looks at.")
        return 0
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=ROOT)
    rest = f"; {left} more that the change touches take longer" if left else ""
    print(f"{len(changes)} changed files, {len(tests)} tests or files of tests{rest}. `make test` runs all.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
