"""A page as its reader gets it: front matter, includes expanded, and the one program that its Python blocks make.

Notation of a page's source:
    ```python            a code block; its only line is an include
    --8<-- "snippets/ddpm.py:schedule"
    ```
    ```python fold       the same, folded on the page
    ```python library    the same with another library: of snippets/library/, no part of the page's program
    ```python given      code that an exercise starts from: of snippets/exercises/, no part of the program
    ```python solution   its solution, folded: of snippets/exercises/, no part of the program
    ```diff tests/snippets/test_ddpm.py::test_jump    a fault in the program's code, and the test that catches it
"""

import ast
import io
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import yaml
from pytest_codeblocks.main import extract_from_buffer

from theme.page import reading, sections
from theme.page.source import SourceError, place

ROOT = Path(__file__).resolve().parents[2]

# the cards of the index, in this order; a post that is not named here follows at the end
ORDER = (
    ["ControlNet", "CFG", "Classifier_Guided_Diffusion", "StableDiffusion", "NCSN", "Diffusion", "GLIP", "CLIP"]
    + ["TextToImage", "LLM/LORA", "LLM/EvaluationMetricsLLM", "LLM/Performer", "LLM/SpanCorruption"]
    + ["LLM/Encoder-Decoder", "LLM/Decoder-Only", "LLM/ROPE", "LLM/Roberta", "LLM/BERT"]
)

SNIPPET_OPTIONS = {"check_paths": True, "dedent_subsections": True, "restrict_base_path": True}
INCLUDE = re.compile(r'^--8<-- "(?P<path>snippets/[\w/]+\.py):(?P<section>[a-z][a-z0-9-]*)"$', re.M)
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.S | re.M)
PYTHON_FENCE = re.compile(r"^```python(?: fold)?$")
ASIDES = {"library": "snippets/library/", "given": "snippets/exercises/", "solution": "snippets/exercises/"}


@dataclass(frozen=True)
class Page:
    """One Markdown file of docs/posts."""

    path: Path
    key: str  # path below docs/posts without .md: "Diffusion", "LLM/ROPE"
    meta: dict  # front matter
    text: str  # what follows the front matter
    first_line: int  # line of the file at which text starts

    @cached_property
    def includes(self) -> list[tuple[str, str]]:
        """(module path, section) of each include, in order."""
        return [(m["path"], m["section"]) for m in INCLUDE.finditer(self.text)]

    @property
    def name(self) -> str:
        """Of its program, which other files import: Decoder_Only for "LLM/Decoder-Only"."""
        return self.key.rpartition("/")[2].replace("-", "_")


def read_page(path: Path, docs: Path = ROOT / "docs") -> Page:
    """Read a post; SourceError when its front matter is missing or is no mapping."""
    source = path.read_text(encoding="utf-8")
    found, name = FRONT_MATTER.match(source), path.relative_to(docs.parent)
    try:
        meta = yaml.safe_load(found[1]) if found else None
    except yaml.MarkedYAMLError as error:
        wrong = f"front matter is no YAML: {error.problem}. Put a text with a colon between quotes"
        raise SourceError(f"{name}:{error.problem_mark.line + 2}: {wrong}") from error
    if not isinstance(meta, dict):
        raise SourceError(f"{name}:1: a post starts with front matter between two lines of ---; got {source[:20]!r}")
    key = path.relative_to(docs / "posts").with_suffix("").as_posix()
    return Page(path, key, meta, source[found.end() :], source[: found.end()].count("\n") + 1)


def posts(root: Path = ROOT) -> list[Page]:
    """All posts, in the order of the index."""
    files = [(path, path.stat()) for path in (root / "docs/posts").rglob("*.md")]
    return list(_posts(root, tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in files)))


@lru_cache(maxsize=8)
def _posts(root: Path, versions: tuple) -> list[Page]:
    pages = [read_page(path, root / "docs") for path, *_ in versions]
    pages = sorted(pages, key=lambda p: (ORDER.index(p.key) if p.key in ORDER else len(ORDER), p.key))
    return reading.with_sentences(pages)


def key_line(page: Page, root: Path, key: str) -> str:
    """File and line of a key of the front matter; the first line where it is missing."""
    lines = page.path.read_text(encoding="utf-8").split("\n")
    return place(page.path, root, next((n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1))


def expand(text: str, root: Path = ROOT) -> str:
    """Replace every include by the lines that it names, as pymdownx.snippets does."""
    return INCLUDE.sub(lambda include: sections.text(root / include["path"], include["section"]), text)


def python_blocks(page: Page, root: Path = ROOT) -> list[str]:
    """The code of the page's Python fences, in order, as the reader sees it."""
    return list(_blocks(expand(page.text, root)))


@lru_cache(maxsize=64)
def _blocks(text: str) -> tuple[str, ...]:
    lines = text.split("\n")
    plain = "\n".join("```python" if PYTHON_FENCE.match(line) else line for line in lines)
    found = extract_from_buffer(io.StringIO(plain), max_num_lines=100_000)
    return tuple(block.code.rstrip("\n") + "\n" for block in found if block.syntax == "python")


def program(page: Page, root: Path = ROOT) -> str:
    """The page's Python blocks, in order, as one program."""
    return "\n\n".join(python_blocks(page, root))


def constants(code: str) -> dict[str, ast.expr]:
    """What each name gets at top level, by its first assignment; `A, B = 1, 2` counts as two."""
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign):
            pairs = [(node.targets[0], node.value)]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(node.targets[0].elts, node.value.elts, strict=False)
            for target, value in pairs:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, value)
    return found


def with_constants(code: str, replaced: dict) -> str:
    """The program with top-level constants replaced; ValueError for a name that it does not assign at top level."""
    known, lines = constants(code), [line.encode() for line in code.split("\n")]  # ast counts bytes
    if missing := sorted(replaced.keys() - known.keys()):
        raise ValueError(f"quick: names {missing}, which no line of the code assigns at top level")
    for name in sorted(replaced, key=lambda name: (known[name].lineno, known[name].col_offset), reverse=True):
        node, value = known[name], repr(replaced[name]).encode()
        first, last = node.lineno - 1, node.end_lineno - 1
        rest = lines[last][node.end_col_offset :]
        lines[first : last + 1] = [lines[first][: node.col_offset] + value + rest] + [b""] * (last - first)
    return "\n".join(line.decode() for line in lines)
