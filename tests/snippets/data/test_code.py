"""The code of CPython's library: what is left out, and the fixed split by module."""

import ast
import subprocess
import sys
import sysconfig
from pathlib import Path

import torch

from snippets.data import code as module
from snippets.data.code import code, programs, without_prose
from snippets.data.text import NOT_PROSE, documents, is_held_out

SOURCE = '''"""A module's docstring,
of two lines."""

import os  # a comment behind code stays

# a line of comment

class A:
    "One line."
    x = """a string
    that is no docstring"""

    async def f(self):
        """Another one."""
        return '''
KEPT = '''import os  # a comment behind code stays
class A:
    x = """a string
    that is no docstring"""
    async def f(self):
        return '''


def test_docstrings_and_lines_of_comment_go_and_all_else_stays():
    assert without_prose(SOURCE + "1\n") == KEPT + "1"
    assert without_prose("def f():\n    ''\n    return 1") == "def f():\n    return 1"  # an empty one
    paged = 'import a\n\f\ndef f(x):\n    """Two\n    lines."""\n    return x\n'  # form feeds do not end lines
    assert without_prose(paged) == "import a\ndef f(x):\n    return x"
    assert without_prose("x = 1\n'no docstring'") == "x = 1\n'no docstring'"


def test_a_minimal_library_is_enough(tmp_path, monkeypatch):
    """Modules wherever Python says that its library is; tests, prose, short ones and copies are left out."""
    long = "x = " + "1 + " * 30 + "1"
    names = ("a.py", "pack/b.py", "test/c.py", "site-packages/d.py", "pydoc_data/topics.py")
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""Prose."""\n{long} + {number}\n')
    (tmp_path / "copy.py").write_text(f"{long} + 0\n# with a comment\n")
    (tmp_path / "short.py").write_text("x = 1\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert programs.__wrapped__() == {"a.py": f"{long} + 0", "pack/b.py": f"{long} + 1"}


def test_the_split_is_that_of_the_prose_and_complete():
    train, held_out = code(), code(held_out=True)
    assert is_held_out("argparse.py") is False and is_held_out("ast.py") is True  # on every machine
    assert train.dtype == torch.long and train.min() >= 0 and train.max() < 256
    assert 3_000_000 < len(train) < 9_000_000 and 200_000 < len(held_out) < 1_500_000
    whole, other = bytes(held_out.tolist()).decode(), bytes(train.tolist()).decode()
    for name, program in programs().items():
        assert program in (whole if is_held_out(name) else other)
        assert program not in (other if is_held_out(name) else whole)
    assert "pydoc_data/topics.py" not in programs() and "json/decoder.py" in programs()
    assert not {part for name in programs() for part in name.split("/")} & NOT_PROSE


def test_no_docstring_of_the_prose_is_left():
    doc = next(d for d in documents()["argparse.py"].split("\n\n") if len(d) > 200 and '"' not in d)
    assert doc.split("\n")[0] not in programs()["argparse.py"]
    left = [name for name in ("ast.py", "argparse.py") if any_docstring(programs()[name])]
    assert not left


def any_docstring(program: str) -> bool:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    try:
        return any(isinstance(node, kinds) and ast.get_docstring(node) for node in ast.walk(ast.parse(program)))
    except SyntaxError:  # a function of nothing but a docstring is left without a body
        return False


def test_no_module_is_imported_by_reading():
    code = "import sys; from snippets.data.code import programs; programs(); print('this' in sys.modules)"
    root = Path(module.__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("False")
