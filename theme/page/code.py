"""Printed code is tested code: sections of modules, fences of pages and their includes, and what is wrong with them."""

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from theme.page.pages import ASIDES, INCLUDE, Page, posts, python_blocks
from theme.page.sections import marked
from theme.page.source import once_per_version, place

KINDS = re.compile(r"python(?: (?P<kind>fold|library|given|solution))?")
OPENING = re.compile(rf"```({KINDS.pattern}|text|bash|bibtex|diff tests/\S+::\w+)")
OURS = re.compile(r"\s*(?:from\s+(?:snippets\b|\.)|import\s+(?:[^#]*,\s*)?snippets\b)")
ANY_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


def sections(root: Path) -> tuple[dict[tuple[str, str], tuple[int, int]], list[str]]:
    """Lines of each section of snippets by (path, name), and problems: malformed, unclosed, twice."""
    found, problems = {}, []
    for path in sorted((root / "snippets").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        here, wrong = marked(path)
        found |= {(name, section): lines for section, lines in here.items()}
        problems += [f"{name}:{number}: {what}" for number, what in wrong]
    return found, problems


def fences(root: Path) -> list[str]:
    """Fences that no runner sees, Python that is no include, and includes that would be printed as they stand."""
    return [problem for page in posts(root) for problem in fence_problems(page.path, root)]


def fence_problems(path: Path, root: Path) -> Iterator[str]:
    opened, kind, lines, name = "", "", 0, path.relative_to(root).as_posix()
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), None], 1):
        here = f"{name}:{number}"
        if line is None:
            if opened:
                yield f"{opened}: this fence is never closed. End the block with a line ```"
        elif opened and line == "```":
            if kind.startswith("python") and lines != 1:
                yield f'{opened}: a python block is one include, given {lines} lines. Write --8<-- "module:section"'
            opened = kind = ""
        elif not opened and ANY_FENCE.match(line):
            match = OPENING.fullmatch(line)
            if match is None:
                mend = "Write ```python, ```python fold, ```text, or another kind that docs/contributing.md names"
                yield f"{here}: no runner and no test sees the fence {line!r}. {mend}"
            opened, kind, lines = here, match[1] if match else "other", 0
        elif opened and ANY_FENCE.match(line):
            yield f"{here}: the fence {line!r} inside a block closes nothing. End the block with a line ```"
        else:
            lines = lines + 1 if opened else 0
            if "8<" in line:
                if not INCLUDE.fullmatch(line):
                    mend = 'Write it with quotes, alone on its line, without spaces around: --8<-- "snippets/x.py:name"'
                    yield f"{here}: {line!r} is no include of a section. {mend}"
                elif not kind.startswith("python"):
                    yield f"{here}: this include is in no python block. Put it between ```python and ```"
                elif (folder := aside(line)) != ASIDES.get(kind.partition(" ")[2], ""):
                    kinds = [f"```python {name}" for name in ASIDES if ASIDES[name] == folder] or ["```python"]
                    yield f"{here}: {line!r} stands in a block of another kind. Write {' or '.join(kinds)} above it"
            elif kind.startswith("python"):
                yield f"{here}: {line!r} is typed on the page. Include a section of a module instead"


def aside(path: str) -> str:
    """The folder of code that is beside a page's program, where a path or an include is of one; else ""."""
    return next((folder for folder in ASIDES.values() if folder in path), "")


@once_per_version
def _imports_of_ours(path: Path) -> list[int]:
    """The lines of a module that import from snippets."""
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    return [number for number, line in lines if OURS.match(line)]


def includes(root: Path) -> list[str]:
    """Includes of sections that do not exist, sections that no page shows, and imports of ours that one would show."""
    have, problems = sections(root)
    used = set()
    for page in posts(root):
        for match in INCLUDE.finditer(page.text):
            wanted = match["path"], match["section"]
            used.add(wanted)
            if wanted not in have:
                near = difflib.get_close_matches(wanted[1], [name for path, name in have if path == wanted[0]], n=1)
                mend = f"Write {near[0]}" if near else "Mark the section in the module"
                line = page.first_line + page.text.count("\n", 0, match.start())
                problems.append(f"{place(page.path, root, line)}: {wanted[0]} has no section {wanted[1]}. {mend}")
    for (path, name), (first, last) in have.items():
        if (path, name) not in used:
            problems.append(f"{path}:{first}: no page shows the section {name}. Include it, or remove its marks")
        elif found := [line for line in _imports_of_ours(root / path) if first <= line <= last]:
            mend = "Move it out of the section, and include the sections that it imports"
            problems += [f"{path}:{line}: a page would show this import of our own code. {mend}" for line in found]
    return problems


def unseen_blocks(root: Path) -> list[str]:
    """Pages whose Python fences are not all among the blocks that run."""
    problems = []
    have, _ = sections(root)
    for page in posts(root):
        if any(include not in have for include in page.includes) or any(fence_problems(page.path, root)):
            continue  # other checks say so
        written = len(re.findall(r"^```python(?: fold)?$", page.text, re.M))
        run = len(python_blocks(page, root))
        if written != run:
            mend = "Remove comments of pytest-codeblocks, and ``` inside of docstrings"
            problems.append(f"{place(page.path, root, 1)}: {written} python fences, but {run} blocks run. {mend}")
    return problems


def programs_import(page: Page, root: Path) -> set[str]:
    """The top-level packages that a page's program imports."""
    found = set()
    for node in ast.walk(ast.parse("\n\n".join(python_blocks(page, root)))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "").partition(".")[0])
    return found
