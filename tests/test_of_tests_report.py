"""Test of what is reported: equations' tests, which tests are a page's, and which tree."""

from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup

from tests import shapes
from theme.around import header, report
from theme.page import equations, marks
from theme.page.pages import ROOT, Page, posts


def test_every_test_starts_from_the_same_numbers():
    import random

    assert (random.random(), torch.rand(()).item()) == (pytest.approx(0.8444218515), pytest.approx(0.4962565899))


def test_equations_lead_to_the_line_of_their_test(tmp_path):
    (tmp_path / "tests/snippets").mkdir(parents=True)
    (tmp_path / "tests/snippets/test_a.py").write_text(
        "import pytest\n\n\n@pytest.mark.equation('one', 'two')\n@pytest.mark.skip\ndef test_a():\n    pass\n\n\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.equation('three'))])\n"
        "def test_b(x):\n    pass\n"
    )
    (tmp_path / "tests/snippets/test_b.py").write_text("@pytest.mark.equation('one')\ndef test_c(): pass\n")
    a = "tests/snippets/test_a.py"
    assert marks.tests(tmp_path, "equation") == {"one": (a, 6), "two": (a, 6), "three": (a, 11)}


def test_labels_stand_in_display_formulas_only(tmp_path):
    text = "$$\nx\n\\label{a}\n$$\n\n```text\n$$\\label{b}$$\n```\n\n$$y \\label{c}$$\n"
    assert equations.labels(Page(tmp_path / "x.md", "x", {}, text, 11)) == [("a", 13), ("c", 20)]


PAGE = Page(Path("docs/posts/LLM/ROPE.md"), "LLM/ROPE", {}, "", 1)
SHOWN = {"snippets/llm/rope.py": {3, 4, 7}, "snippets/blocks/attention.py": {9}}


@pytest.mark.parametrize(
    ("test", "properties", "is_its"),
    [
        ("tests/snippets/test_cfg.py::test_x", [("entered", {"snippets/llm/rope.py": [1, 4]})], True),
        ("tests/snippets/test_cfg.py::test_x", [("entered", {"a.py": [3], "snippets/blocks/attention.py": [9]})], True),
        (
            "tests/snippets/llm/test_rope.py::test_x",
            [("entered", {"snippets/llm/rope.py": [1, 5], "a.py": [3]})],
            False,
        ),
        ("tests/snippets/llm/test_rope.py::test_x", [("equation", "rope-linear")], False),
        ("tests/pages/test_programs.py::test_x[LLM/ROPE]", [("page", "LLM/ROPE")], True),
        ("tests/site/test_browser.py::test_x[posts/LLM/ROPE/]", [("page", "LLM/ROPE")], True),
        ("tests/pages/test_programs.py::test_x[LLM/ROPE2]", [("page", "LLM/ROPE2")], False),
        ("tests/labs/LLM/test_ROPE.py::test_x", [], True),
        ("tests/labs/test_rope.py::test_x[a]", [], True),
        ("tests/labs/test_llm_rope.py::test_x", [], True),
        ("tests/labs/test_rope2.py::test_x", [], False),
        ("tests/labs/test_diffusion.py::test_x", [], False),
    ],
)
def test_which_tests_are_a_pages(test, properties, is_its):
    assert report.belongs({"id": test, "properties": properties}, PAGE, SHOWN) is is_its


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_each_page_has_the_tests_of_its_lab(page):
    tests = [f"{path.relative_to(ROOT).as_posix()}::test_x" for path in (ROOT / "tests/labs").rglob("test_*.py")]
    mine = [test for test in tests if report.belongs({"id": test, "properties": []}, page, {})]
    assert len(mine) == 1, f"no file of tests/labs is named like {page.key}: {tests}"


def test_parameters_name_pages():
    values = [PAGE, 3, "posts/LLM/ROPE/", "labs/CFG/", "contributing/", "NCSN", "ROPE", ("posts/CFG/",), "a\nb", ""]
    assert list(report.pages_of(values)) == ["LLM/ROPE", "LLM/ROPE", "CFG", "NCSN"]


def test_the_report_counts_what_is_on_the_page(tmp_path):
    for name in (*report.TESTED, "snippets/blocks", "snippets/exercises", "tests/snippets"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    text = "---\nmodule: snippets/a.py\n---\n$$x\\label{x}$$\n$$y\\label{y}$$\n$$z\\label{z}$$\n\n"
    text += '```python\n--8<-- "snippets/blocks/b.py:b"\n```\n\n'
    text += "A. {{ claim: a-b }} B. {{ claim: b-c }} `{{ claim: c }}`\n\n"
    text += "```diff tests/snippets/test_x.py::test_y\n-y\n+z\n```\n\n"
    text += '```python solution\n--8<-- "snippets/exercises/a.py:exercise-1"\n```\n'
    (tmp_path / "docs/posts/A.md").write_text(text)
    (tmp_path / "snippets/blocks/b.py").write_text("x\n# --8<-- [start:b]\nx\ny\n# --8<-- [end:b]\nx\n")
    (tmp_path / "tests/snippets/test_x.py").write_text("def test_y():\n    pass\n")
    solved = (
        '"""Toys."""\n# --8<-- [start:exercise-1]\ndef one():\n    """Say 1.\n\n    Hint: 1.\n    """\n    return 1\n'
    )
    check = "# --8<-- [end:exercise-1]\n\n\ndef check_1(answer):\n    pass\n"
    (tmp_path / "snippets/exercises/a.py").write_text(solved + check)
    near, far = ({"name": "o", "difference": d, "tolerance": 1.0} for d in (0.1, 0.3))
    inside, outside = ("entered", {"snippets/blocks/b.py": [3]}), ("entered", {"snippets/blocks/b.py": [6]})
    other = ("oracle", {**far, "name": "o2"})
    properties = {
        "tests/snippets/blocks/test_b.py::test_1": [("equation", "x"), ("evaluated", "x"), ("oracle", near), inside],
        "tests/snippets/blocks/test_b.py::test_2": [("equation", "x"), ("equation", "z"), ("oracle", far), inside],
        "tests/snippets/blocks/test_b.py::test_3": [other, outside],  # of code that the page does not show
        "tests/snippets/test_c.py::test_4": [other, inside],  # of another page, whose code uses this one's
        "tests/labs/test_a.py::test_5": [("claim", "a-b")],
        "tests/labs/test_x.py::test_6": [("claim", "c-d")],
    }
    tests = [{"id": test, "properties": values} for test, values in properties.items()]
    report.write(tmp_path, tests, {"snippets/blocks/b.py": {1, 3, 6}, "snippets/c.py": {1}})
    found = report.load(tmp_path)["posts"]["A"]
    assert found.pop("oracles") == [far]
    counts = {"tests": 4, "equations": 2, "evaluated": 1, "pinned": 1, "claims": 1, "exercises": 1, "breakages": 1}
    assert found == counts | {"shape_comments": 1}


FOUND = {"tests": 1200, "equations": 3, "evaluated": 2, "pinned": 1, "claims": 0, "exercises": 5, "breakages": 1}
FOUND |= {"shape_comments": 40, "oracles": [{"name": "<b> 1.0 C", "difference": 2.5e-7, "tolerance": 1e-5}]}
REPORT = {"date": "2026-11-25", "posts": {"LLM/ROPE": FOUND}}


def test_the_panel_is_one_line_that_leads_to_details_that_lead_to_what_they_mean():
    url = "posts/LLM/ROPE/"
    line = BeautifulSoup(header.verified("LLM/ROPE", REPORT, url), "html.parser").p
    assert line.get_text() == (
        "Verified 25 November 2026: 1,200 tests, 2 equations, 1 pinned equation, 40 shape comments, 5 exercises, "
        "1 planted fault. Details"
    )
    lab = {"date": "2026-11-23", "rechecked": "2026-11-24"}
    end = header.verified_details("LLM/ROPE", REPORT, url, lab, {"date": "2026-11-22"})
    end = BeautifulSoup(end, "html.parser")
    assert end.find(id=line.a["href"].removeprefix("#")).name == "h2"
    rows = {row.dt.get_text(): row.dd.get_text() for row in end.select("dl > div")}
    assert rows["Agrees with <b> 1.0 C"] == "largest difference 2.5e-07, allowed 1e-05"
    assert rows["Figures and numbers"].startswith("from a run of 23 November 2026, re-checked on 24 November 2026")
    assert rows["Output of the program"] == "from a run of 22 November 2026" and len(rows) == 9
    meaning = (ROOT / "docs/verified.md").read_text()
    for link in end.select("dt a"):
        assert f"{{ #{link['href'].removeprefix('../../../verified/#')} }}" in meaning


def test_without_a_report_nothing_is_claimed():
    for missing in (None, REPORT):
        line = BeautifulSoup(header.verified("CFG", missing, "posts/CFG/"), "html.parser").p
        assert line.get_text() == "not verified in this build. What this means"
        assert line.a["href"] == "../../verified/#not-verified"
        assert header.verified_details("CFG", missing, "posts/CFG/", None, None) == ""


def test_the_hash_is_of_what_was_tested_and_of_nothing_else(tmp_path):
    for name in report.TESTED:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.py").write_text("1")
    before = report.tree_hash(tmp_path)
    for name in ("snippets/__pycache__/a.pyc", "docs/labs/.ipynb_checkpoints/a.ipynb", "docs/figures/a.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert report.tree_hash(tmp_path) == before
    for name in report.TESTED:
        (tmp_path / name / "a.py").write_text("2")
        assert report.tree_hash(tmp_path) != before
        (tmp_path / name / "a.py").write_text("1")
    (tmp_path / "tests/a.py").rename(tmp_path / "tests/b.py")
    assert report.tree_hash(tmp_path) != before


def test_no_report_is_none(tmp_path):
    assert report.load(tmp_path) is None
    (tmp_path / ".verified").mkdir()
    (tmp_path / report.REPORT).write_text("{")
    assert report.load(tmp_path) is None


def test_letters_are_read_from_the_docstring():
    text = (
        "A.\n\nShapes: B batch, C image channels, D size of a head; Ch heads,\nT levels. Not X here.\n\nAnd Y, Z not."
    )
    assert shapes.declared(text) == {"B", "C", "D", "Ch", "T"}
    assert shapes.declared("A module without letters.") == set()
