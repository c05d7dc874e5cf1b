"""`make check` runs what a change touches, and says what it leaves out."""

import json
import subprocess

import pytest

from theme.page.pages import ROOT, posts
from tools import check

MODULE = """X = 1


def first():
    return X


@property
def second():
    return 2
"""


@pytest.fixture
def tree(tmp_path):
    """A repository with one module, its test and a map."""
    for name, text in {
        "snippets/a.py": MODULE,
        "tests/snippets/test_a.py": "",
        "theme/x.css": "",
        "docs/posts/A.md": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "docs/posts/A.md").write_text('---\ntitle: A\n---\n\n```python\n--8<-- "snippets/a.py:x"\n```\n')
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


def known(tree) -> dict:
    tests = [
        ("tests/snippets/test_a.py::test_first", 1.0, [("entered", {"snippets/a.py": [4]})]),
        ("tests/snippets/test_a.py::test_second", 2.0, [("entered", {"snippets/a.py": [8, 9]})]),
        ("tests/snippets/test_a.py::test_slow", 90.0, [("entered", {"snippets/a.py": [4]})]),
        ("tests/pages/test_programs.py::test_page[A]", 3.0, [("page", "A")]),
    ]
    check.write_map(tree, [dict(zip(("id", "seconds", "properties"), one, strict=True)) for one in tests])
    return json.loads((tree / check.MAP).read_text())


def test_a_changed_function_runs_its_tests_and_its_page_within_the_time(tree, monkeypatch):
    monkeypatch.setattr("theme.page.pages.ORDER", [])
    (tree / "tests/pages").mkdir()
    (tree / "tests/pages/test_programs.py").touch()
    before = known(tree)
    (tree / "snippets/a.py").write_text(MODULE.replace("return X", "return X + 1"))
    changes = check.changed(tree)
    assert changes["snippets/a.py"] == {5}
    tests, left = check.chosen(tree, changes, before)
    programs = "tests/pages/test_programs.py"
    assert programs in tests  # new, so it is run whole
    assert tests[-1] == "tests/snippets/test_a.py::test_first" and left == 1
    (tree / "snippets/a.py").write_text(MODULE.replace("X = 1", "X = 2"))  # which both may use
    tests, left = check.chosen(tree, {"snippets/a.py": {1}}, before)
    assert [test.rpartition("_")[2] for test in tests] == ["first", "second", "page[A]"] and left == 1
    tests, left = check.chosen(tree, {"docs/posts/A.md": {5}}, before)
    assert tests == [f"{programs}::test_page[A]"] and left == 0


def test_without_a_map_the_modules_own_test_runs_and_the_theme_has_its_own(tree):
    assert check.chosen(tree, {"snippets/a.py": {5}}, {}) == (["tests/snippets/test_a.py", check.SOURCES], 0)
    assert check.chosen(tree, {"theme/x.css": {1}}, {})[0][0] == "tests/site/test_built.py"
    assert check.chosen(tree, {}, {}) == ([], 0)


def test_this_repositorys_pages_are_found_by_their_files():
    pages = posts()
    page = next(page for page in pages if page.key == "LLM/ROPE")
    assert page in check.concerned({"docs/results/LLM/ROPE.json": set()}, pages)
    assert page in check.concerned({page.meta["module"]: set()}, pages)
    assert check.concerned({"README.md": {1}}, pages) == []
    assert check.names((ROOT / "tools/check.py").read_text(), [1, 10_000]) == {""}
