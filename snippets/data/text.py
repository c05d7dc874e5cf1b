"""English prose that every CPython brings along: topics of its help, docstrings of its library.

Shapes: N bytes.
"""

# --8<-- [start:text]
import ast
import functools
import hashlib
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

NOT_PROSE = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "encodings",
}
FILES = "*.py"  # of the library


def library() -> Iterator[tuple[str, str]]:
    """Path and source of each module of Python's library, in order. Nothing is imported."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob(FILES)):
        parts = path.relative_to(root).parts
        if not NOT_PROSE & set(parts):
            yield "/".join(parts), path.read_text(encoding="utf-8", errors="replace")


def docstrings(source: str) -> list[str]:
    """The docstrings of some Python code, module first; shorter than 80 characters, they are no prose."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    found = [ast.get_docstring(node) or "" for node in nodes]  # without the code's indentation
    return [doc for doc in found if len(doc) >= 80]


def topics(source: str) -> dict[str, str]:
    """The dictionary of `pydoc_data/topics.py`: what `help("assert")` and its like print."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return {name: inspect.cleandoc(doc) for name, doc in ast.literal_eval(node.value).items()}
    raise ValueError("a module that assigns a dictionary of topics is expected, given one without")


@functools.cache
def documents() -> dict[str, str]:
    """Each topic and each module's docstrings by name, no longer paragraph twice."""
    found, seen = {}, set()
    for name, source in library():
        if name == "pydoc_data/topics.py":
            passages = {f"topic {topic}": [doc] for topic, doc in topics(source).items()}
        else:
            passages = {name: docstrings(source)}
        for key, docs in passages.items():
            kept = []
            for paragraph in "\n\n".join(docs).split("\n\n"):
                if (
                    len(paragraph) < 80 or paragraph not in seen
                ):  # else it could be in both parts of the split
                    kept.append(paragraph)
                seen.add(paragraph)
            if any(len(paragraph) >= 80 for paragraph in kept):
                found[key] = "\n\n".join(kept)
    return found


def is_held_out(name: str) -> bool:
    """Whether a document is among the tenth that no model trains on: a hash of its name decides, for ever."""
    return hashlib.sha256(name.encode()).digest()[0] % 10 == 0


def as_bytes(passage: str) -> Tensor:
    """The UTF-8 bytes (N,) of a passage, integers from 0 to 255: a vocabulary that needs no tokenizer."""
    codes = torch.tensor(list(passage.encode()), dtype=torch.long)  # (N,)
    return codes


def text(held_out: bool = False) -> Tensor:
    """Bytes (N,) of about nine tenths of the documents to train on, or of the held-out tenth.

    Sizes differ between versions of Python, since their documentation does; the rule of the split does not.
    """
    chosen = [doc for name, doc in sorted(documents().items()) if is_held_out(name) == held_out]
    codes = as_bytes("\n\n\n".join(chosen))  # (N,)
    return codes


def own_text(path: str | Path, held_out: bool = False) -> Tensor:
    """The same for a text file of the reader's own: its first nine tenths, or its last tenth. UTF-8."""
    try:
        passage = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"a text file in UTF-8 is expected, given {path}: {error}") from error
    if len(passage) < 10:
        raise ValueError(f"a text of at least 10 characters is expected, given {len(passage)} in {path}")
    cut = len(passage) * 9 // 10
    codes = as_bytes(passage[cut:] if held_out else passage[:cut])  # (N,)
    return codes


# --8<-- [end:text]
