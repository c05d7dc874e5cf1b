"""Test of what is reported: equations' tests, which tests are a page's, and which tree."""

import pytest

from tests import shapes
from theme.around import report
from theme.page import equations, marks
from theme.page.pages import Page


def test_every_test_starts_from_the_same_numbers():
    import random

    torch = pytest.importorskip("torch")

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


PAGE = Page(None, "LLM/ROPE", {"module": "snippets/llm/rope.py"}, '--8<-- "snippets/blocks/attention.py:heads"\n', 1)


@pytest.mark.parametrize(
    ("test", "is_its"),
    [
        ("tests/snippets/llm/test_rope.py::test_x[1]", True),
        ("tests/snippets/blocks/test_attention.py::test_x", True),
        ("tests/snippets/test_rope.py::test_x", False),
        ("tests/snippets/blocks/test_unet.py::test_x", False),
        ("tests/pages/test_programs.py::test_x[LLM/ROPE]", True),
        ("tests/pages/test_programs.py::test_x[LLM/ROPE2]", False),
        ("tests/labs/test_labs.py::test_x[LLM/ROPE]", True),
        ("tests/labs/LLM/test_ROPE.py::test_x", True),
        ("tests/labs/test_llm_rope.py::test_x", True),
        ("tests/labs/test_diffusion.py::test_x", False),
        ("tests/site/test_browser.py::test_x[LLM/ROPE]", False),
    ],
)
def test_which_tests_are_a_pages(test, is_its):
    assert report.belongs(test, PAGE) is is_its


def test_the_report_counts_what_is_on_the_page(tmp_path):
    for name in (*report.TESTED, "snippets/blocks"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    text = "---\nmodule: snippets/a.py\n---\n$$x\\label{x}$$\n$$y\\label{y}$$\n$$z\\label{z}$$\n\n"
    text += '```python\n--8<-- "snippets/blocks/b.py:b"\n```\n'
    (tmp_path / "docs/posts/A.md").write_text(text)
    (tmp_path / "snippets/blocks/b.py").write_text("x\n# --8<-- [start:b]\nx\nx\n# --8<-- [end:b]\nx\n")
    near, far = ({"name": "o", "difference": d, "tolerance": 1.0} for d in (0.1, 0.3))
    tests = [
        {"id": "tests/snippets/test_a.py::test_1", "equations": ["x"], "evaluated": ["x"], "oracles": [near, far]},
        {"id": "tests/snippets/test_a.py::test_2", "equations": ["x", "z"], "evaluated": [], "oracles": [near]},
        {
            "id": "tests/snippets/test_c.py::test_3",
            "equations": [],
            "evaluated": [],
            "oracles": [{**far, "name": "o2"}],
        },
    ]
    report.write(tmp_path, tests, {"snippets/blocks/b.py": {1, 3, 6}, "snippets/c.py": {1}})
    found = report.load(tmp_path)["posts"]
    assert found == {
        "A": {"tests": 2, "equations": 2, "evaluated": 1, "pinned": 1, "shape_comments": 1, "oracles": [far]}
    }


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
