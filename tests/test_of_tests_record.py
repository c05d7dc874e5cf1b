"""Test of `make record`: it keeps what a program did, and nothing where it failed; the page shows it."""

import json

import pytest
from bs4 import BeautifulSoup

from theme.page import records
from theme.page.pages import Page
from tools import record

CODE = """import sys
from pathlib import Path


class A:
    def used(self):
        return [x for x in (lambda: [1])()]

    def unused(self):
        pass


print(A().used(), "<b>")
print("bar", file=sys.stderr)
Path("one.svg").write_text('<svg viewBox="0 0 9 9"/>')
Path("a.txt").write_text("x")
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page whose program is CODE."""
    monkeypatch.setattr(record, "program", lambda page, root=None: CODE)
    (tmp_path / "docs/posts").mkdir(parents=True)
    (tmp_path / "docs/posts/X.md").write_text("---\nprogram: {}\n---\n\n{{ program }}\n")
    return Page(tmp_path / "docs/posts/X.md", "X", {"program": {"alt": "a line"}}, "\n{{ program }}\n", 4)


def test_a_run_is_kept_and_shown(page, tmp_path):
    record.record(page, tmp_path)
    assert record.stale(page, tmp_path) == []
    kept = records.load(tmp_path, "X")
    assert kept["printed"] == ["[1] <b>"] and kept["functions"] == ["A.used"]
    assert kept["files"] == {"a.txt": 1, "one.svg": 24} and list(kept["pictures"]) == ["one.svg"]
    assert 0 <= kept["seconds"] < 60
    soup = BeautifulSoup(records.blocks(page, tmp_path, "posts/X/")["program"], "html.parser")
    assert soup.pre.get_text() == "[1] <b>" and soup.img["alt"] == "a line" and soup.img["width"] == "9"
    assert soup.img["src"] == "../../figures/X/program/one.svg"
    assert soup.figcaption.get_text().startswith("Printed by this page's program (0 s on one thread, ")
    assert soup.figcaption.get_text().endswith("), and the picture that it saves: one.svg.")


def test_what_is_no_longer_so_is_told(page, tmp_path, monkeypatch):
    record.record(page, tmp_path)
    page.meta["program"] = {"alt": {"two.svg": "another"}}
    told = 'docs/posts/X.md:2: the picture one.svg has no alternative text. Write program: {alt: {one.svg: "what it'
    assert record.stale(page, tmp_path)[0].startswith(told)
    page.meta["program"] = {"alt": {"one.svg": "a line"}}
    (tmp_path / "docs/figures/X/program/one.svg").write_text("<svg/>")
    told = "docs/figures/X/program/one.svg:1: this file is not the one that the program of X saved. Run: make record"
    assert record.stale(page, tmp_path)[0].startswith(told)
    monkeypatch.setattr(record, "program", lambda page, root=None: CODE + "# a comment\n")
    assert len(record.stale(page, tmp_path)) == 1  # comments do not count
    monkeypatch.setattr(record, "program", lambda page, root=None: CODE + "x = 1\n")
    assert record.stale(page, tmp_path)[0].startswith("docs/posts/X.md:5: the program changed after its run was rec")


def test_without_a_record_the_page_says_so(page, tmp_path):
    assert "No run is recorded" in records.blocks(page, tmp_path, "posts/X/")["program"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("raise KeyError('x')\n", "docs/posts/X.md:1: the program fails:\n.*KeyError: 'x'"),
        ("Path('b.png').write_bytes(bytes(300_000))\n", "b.png weighs 292 KiB, more than 200"),
        ("import warnings\nwarnings.warn('old', DeprecationWarning)\n", "DeprecationWarning: old"),
    ],
)
def test_of_a_program_that_fails_nothing_is_kept(page, tmp_path, monkeypatch, more, told):
    monkeypatch.setattr(record, "program", lambda page, root=None: CODE + more)
    with pytest.raises(SystemExit, match=f"(?s){told}"):
        record.record(page, tmp_path)
    assert not (tmp_path / "docs/results").exists() and not (tmp_path / "docs/figures").exists()


def test_the_record_can_be_read_line_by_line(page, tmp_path):
    record.record(page, tmp_path)
    text = (tmp_path / "docs/results/X.program.json").read_text()
    assert json.loads(text) and '"[1] <b>"' in text.split("\n")[2]
