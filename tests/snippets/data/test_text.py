"""The prose of CPython: what is taken, and the fixed split by document."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from snippets.data import text as module
from snippets.data.text import as_bytes, docstrings, documents, is_held_out, own_text, text, topics


def test_docstrings_are_those_that_help_prints():
    doc = "One sentence that is long enough to be prose.\n\nAnd another one, after a blank line, to end it."
    indented = doc.replace("\n\n", "\n\n        ")
    code = f'"""{doc[:79]}"""\nclass A:\n    async def f():\n        """{indented}"""\n    x = "{"y" * 90}"\n'
    assert docstrings(code) == [doc]  # without its indentation; neither the short one nor a mere string
    assert docstrings(code.replace(doc[:79], doc[:80])) == [doc[:80].strip(), doc][doc[79] == " " :]


def test_topics_are_read_without_an_import():
    assert topics('topics = {"assert": "It checks.", "del": "It removes."}') == {
        "assert": "It checks.",
        "del": "It removes.",
    }
    with pytest.raises(ValueError, match="given one without"):
        topics("x = 1")


def test_topics_are_those_of_help():
    from pydoc_data.topics import topics as theirs

    seen = [name for name in documents() if name.startswith("topic ")]
    assert len(seen) > 60
    for name in ("assert", "comparisons", "specialnames"):
        ours, paragraphs = documents()[f"topic {name}"], theirs[name].strip().split("\n\n")
        assert sum(p in ours for p in paragraphs) > 0.5 * len(paragraphs)  # the others are in earlier documents


def test_documents_hold_docstrings_of_the_library_once():
    import argparse

    assert documents()["argparse.py"].startswith(argparse.__doc__.strip()[:60])
    passages = [p for doc in documents().values() for p in doc.split("\n\n") if len(p) >= 80]
    assert len(set(passages)) == len(passages) > 5000
    assert not {part for name in documents() for part in name.split("/")} & module.NOT_PROSE


def test_no_module_is_imported_by_reading():
    """antigravity opens a browser and `this` prints: their docstrings are read, they are not run."""
    code = "import sys; from snippets.data.text import documents; documents(); print('this' in sys.modules)"
    root = Path(module.__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("False")


def test_the_split_is_fixed_and_complete():
    train, held_out = text(), text(held_out=True)
    names = [n for n in documents() if int(hashlib.sha256(n.encode()).hexdigest()[:2], 16) % 10 == 0]
    assert names == [n for n in documents() if is_held_out(n)] and 0.05 < len(names) / len(documents()) < 0.15
    assert is_held_out("argparse.py") is False and is_held_out("ast.py") is True  # on every machine
    assert train.dtype == torch.long and train.min() >= 0 and train.max() < 256
    assert 1_000_000 < len(train) < 4_000_000 and 60_000 < len(held_out) < 400_000
    whole = bytes(held_out.tolist()).decode()
    assert all(documents()[name] in whole for name in names)
    other = set(bytes(train.tolist()).decode().split("\n\n"))
    assert not [p for p in whole.split("\n\n") if len(p) >= 80 and p in other]  # no paragraph is in both


def test_a_minimal_library_is_enough(tmp_path, monkeypatch):
    """Documents are found wherever Python says that its library is; folders of tests are not prose."""
    long = "x" * 100
    for name in ("a.py", "pack/b.py", "test/c.py", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""{name}{long}"""\ndef f():\n    """{long}"""\n')
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    found = documents.__wrapped__()
    assert found == {"a.py": f"a.py{long}\n\n{long}", "pack/b.py": f"pack/b.py{long}"}  # not twice


def test_bytes_come_back_as_text():
    passage = "naïve — 日本\n"
    codes = as_bytes(passage)
    assert codes.shape == (18,) and bytes(codes.tolist()).decode() == passage


def test_own_text_is_split_at_nine_tenths(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("0123456789é123456789", encoding="utf-8")
    assert bytes(own_text(file).tolist()).decode() == "0123456789é1234567"
    assert bytes(own_text(str(file), held_out=True).tolist()).decode() == "89"
    file.write_bytes(b"0123456789\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8 is expected, given"):
        own_text(file)
    file.write_text("012345678")
    with pytest.raises(ValueError, match="at least 10 characters is expected, given 9"):
        own_text(file)
    with pytest.raises(FileNotFoundError):
        own_text(tmp_path / "none.txt")
