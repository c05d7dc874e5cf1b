"""Test of the tests: a small project of its own passes, and each planted defect fails it with file, line and mend.

The checks are the real files, copied, and run by pytest in a process of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import shapes, test_house
from tests.labs.checks import figures, notebooks, outputs, sealed, stale
from tests.pages import test_programs
from theme.around import report
from theme.page.checks import CHECKS
from theme.page.pages import ROOT, Page, posts, program
from tools import reached, record

COPIED = [
    "pyproject.toml",
    "theme/__init__.py",
    "theme/around/__init__.py",
    "theme/around/report.py",
    "tools/__init__.py",
    "tools/check.py",
    "tools/lab.py",
    "tools/labs.py",
    "tools/reached.py",
    "tools/record.py",
]
COPIED += ["tests/__init__.py", "tests/conftest.py", "tests/shapes.py", "tests/test_house.py", "tests/labs/__init__.py"]
COPIED += [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "theme/page").glob("*.py"))]
COPIED += ["tests/labs/checks.py", "tests/labs/test_labs.py", "tests/pages/__init__.py"]
COPIED += ["tests/pages/test_programs.py", "tests/pages/test_sources.py"]
COPIED += [
    "tests/building.py",
    "tests/claims.py",
    "tests/disturb.py",
    "tests/equations.py",
    "tests/formula.py",
    "tests/oracles.py",
]

EXERCISE_FILES = ["snippets/exercises/__init__.py", "snippets/exercises/checking.py"]
EXERCISE_FILES += [f"tests/snippets/{name}" for name in ("__init__.py", "conftest.py", "exercises/__init__.py")]
EXERCISE_FILES += [f"tests/snippets/exercises/{name}.py" for name in ("answers", "test_checking")]
EXERCISE_FILES += [f"tests/pages/{name}.py" for name in ("faulty", "test_breakages", "test_exercises")]

MODULE = '''"""A toy.

Shapes: B batch, D features.
"""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:double]
def double(x: Tensor) -> Tensor:
    """Twice x."""
    y = 2 * x  # (B, D) twice as large
    return y


# --8<-- [end:double]


# --8<-- [start:main]
STEPS = 3

if __name__ == "__main__":
    print(double(torch.ones(STEPS, 2)).sum().item())
# --8<-- [end:main]
'''
TEST = '''"""Doubling, by its definition."""

import pytest
import torch

from snippets.toy import double


@pytest.mark.equation("toy-double", of=double)
def test_double(agrees, formula):
    x = torch.rand(3, 2)
    agrees(double(x), torch.add(x, x), oracle="torch.add")
    formula("toy-double").holds({"y": double(x), "x": x})
'''
PAGE = """---
title: Toy
badge: {label: Toy, message: A toy}
module: snippets/toy.py
description: A toy.
first: {}
picture: {file: figures/Toy/plot.svg, alt: A line}
quick: {STEPS: 2}
---

# Toy

{{ read first }}

```python
--8<-- "snippets/toy.py:imports"
```

$$
y = 2 x
\\label{toy-double}
$$

```python fold
--8<-- "snippets/toy.py:double"
```

![A line that rises.](../figures/Toy/plot.svg)

The loss is {{ Toy: loss | .2f }}, less than 0.97 and $0.25$; see [the lab](../labs/Toy.ipynb).

```python
--8<-- "snippets/toy.py:main"
```

{{ program }}

{{ read next }}
"""
RECORD = "docs/results/Toy.program.json"
RECORDED = {"printed": ["12.0"], "pictures": {}, "files": {}, "functions": ["double"], "seconds": 1.2}
RECORDED |= {"date": "2026-11-23", "compiler": record.COMPILER}
SVG = '<svg viewBox="0 0 9 9"/>'
RESULTS = {
    "values": {"loss": 0.2512, "steps": 1500, "seconds": [312.42]},
    "seed": 0,
    "versions": {},
    "device": "cpu",
    "date": "2026-11-23",
}
EXERCISES = '''"""A toy's exercise.

Shapes: B batch, D features.
"""

from torch import Tensor, ones

from snippets.exercises.checking import compare
from snippets.toy import double


# --8<-- [start:exercise-1]
def fourfold(x: Tensor) -> Tensor:
    """Four times x (B, D).

    Hint: Twice as much is half of it.
    """
    y = double(double(x))  # (B, D)
    return y


# --8<-- [end:exercise-1]


def check_1(answer) -> None:
    """On ones."""
    compare("fourfold(1)", answer(ones(3, 2)), 4 * ones(3, 2))
'''
ANSWERS = '''"""Wrong answers."""

from snippets.exercises import toy
from tests.snippets.exercises.answers import prove

WRONG = {1: [(toy.double, "off by up to 2")]}


def test_answers():
    prove(toy, 1, WRONG[1])
'''
FAULT = """
```diff tests/snippets/test_toy.py::test_double
-    y = 2 * x  # (B, D) twice as large
+    y = 3 * x  # (B, D) twice as large
```
"""
SOLUTION = """
[The starter](Toy/Toy_exercises.py)

```python solution
--8<-- "snippets/exercises/toy.py:exercise-1"
```
"""


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8", newline="")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A project with one module, its test, its page and its lab, without a defect."""
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    write(tmp_path, "snippets/__init__.py", "")
    write(tmp_path, "snippets/toy.py", MODULE)
    write(tmp_path, "tests/snippets/test_toy.py", TEST)
    write(tmp_path, "docs/posts/Toy.md", PAGE)
    write(tmp_path, "docs/figures/Toy/plot.svg", SVG)
    write(tmp_path, "README.md", "```bash\nmake test\n```\n\n```python\nimport snippets\n```\n")
    write(tmp_path, "Makefile", "test:\n\ttrue\n")
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "id": "a", "source": ["lab.record()"]}
    said = ["loss: 0.2512\n", "steps: 1500\n", "seconds: [312.42]\n"]
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": said}]
    other = cell | {"execution_count": 2, "outputs": [], "id": "b", "source": ["from snippets.toy import double"]}
    notebook = {"cells": [cell, other], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    write(tmp_path, "docs/labs/Toy.ipynb", json.dumps(notebook, indent=1))
    code = reached.fingerprints("Toy", tmp_path)
    files = {"docs/figures/Toy/plot.svg": reached.digest(tmp_path / "docs/figures/Toy/plot.svg")}
    write(tmp_path, "docs/results/Toy.json", json.dumps(RESULTS | {"code": code, "files": files}, indent=1))
    made = RECORDED | {"code": record.fingerprint(program(posts(tmp_path)[0], tmp_path))}
    write(tmp_path, RECORD, json.dumps(made | {"seal": record.seal(made)}, indent=1))
    return tmp_path


def replace(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_bytes().decode()
    assert text.count(old) == 1
    write(root, name, text.replace(old, new))


@dataclass
class Defect:
    """A change of one file, and what must be said of the last line that is, or begins with, `at`."""

    file: str
    old: str
    new: str
    at: str
    message: str
    place: str = ""  # where it must be said, if that is another file

    def plant(self, root: Path) -> None:
        replace(root, self.file, self.old, self.new)

    def expected(self, root: Path) -> str:
        """The beginning of what the tests must say."""
        place = self.place or self.file
        lines = (root / place).read_text(encoding="utf-8").split("\n")
        same = [number for number, text in enumerate(lines, 1) if text == self.at]
        line = max(same or [number for number, text in enumerate(lines, 1) if text.strip().startswith(self.at)])
        return f"{place}:{line}: {self.message}"


TOY, POST, LAB = "snippets/toy.py", "docs/posts/Toy.md", "docs/labs/Toy.ipynb"
FIGURE, TESTS = "docs/figures/Toy/plot.svg", "tests/snippets/test_toy.py"
IMPORTS, START, END = "# --8<-- [start:imports]", "# --8<-- [start:main]", "# --8<-- [end:main]"
INCLUDE, PICTURE = '--8<-- "snippets/toy.py:imports"', "![A line that rises.](../figures/Toy/plot.svg)"
MARKER, HOST, TODO = '@pytest.mark.equation("toy-double", of=double)', "https://cdn.example.org/x", "TO" + "DO: write"
ASKED, MARK_IT = "a reader's browser would ask another host:", "Mark the test that checks it with @pytest.mark.equation"
QUOTES, UNSEEN = "is no include of a section. Write it with quotes, alone", "no runner and no test sees the fence"
UNQUOTED, NO_ALT = INCLUDE.replace('"', ""), "the picture has no alternative text. Say in a sentence what it shows"
SECTIONS = {
    "unclosed": Defect(TOY, END, "", START, f"section main is never closed. Add {END}"),
    "closed by another name": Defect(TOY, END, "# --8<-- [end:x]", "# --8<-- [end:x]", "section x ends here but never"),
    "there twice": Defect(TOY, END, f"{END}\n{START}\n{END}", START, "section main begins twice. Give the second"),
    "trailing space in a mark": Defect(TOY, END, END + " ", END, f"{END!r} is no mark of a section. A mark has its"),
    "on no page": Defect(POST, ':imports"', ':main"', IMPORTS, "no page shows the section imports. Include it", TOY),
    "unknown": Defect(
        POST, ':double"', ':dubel"', '--8<-- "snippets/toy.py:dubel', "snippets/toy.py has no section dubel."
    ),
    "import of ours": Defect(
        TOY, "import torch\n", "import torch\n\nimport snippets\n", "import sn", "a page would show this"
    ),
    "directive with a trailing space": Defect(POST, INCLUDE, INCLUDE + " ", INCLUDE, f"{INCLUDE + ' '!r} {QUOTES}"),
    "directive without quotes": Defect(POST, INCLUDE, UNQUOTED, UNQUOTED, f"{UNQUOTED!r} {QUOTES}"),
    "directive in no block": Defect(
        POST, ':main"\n```\n', f':main"\n```\n\n{INCLUDE}\n', INCLUDE, "this include is in no python block. Put"
    ),
    "code typed on the page": Defect(POST, INCLUDE, "print(1)", "print(1)", "'print(1)' is typed on the page. Include"),
}
FENCES = {
    f"fence {fence}": Defect(POST, "```python fold", fence, fence, f"{UNSEEN} {fence!r}. Write ```python, ```python")
    for fence in (
        "```py",
        "``` python",
        "~~~python",
        "```{ .python }",
        '```python title="x"',
        " ```python",
        "````python",
    )
} | {
    "unclosed fence": Defect(
        POST, ':main"\n```\n', ':main"\n', "```python", "this fence is never closed. End the block"
    )
}
EQUATIONS = {
    "without a test": Defect(
        POST,
        "y = 2 x",
        "y = 2 x \\label{toy-other}",
        "y = 2 x",
        f'no test checks the equation toy-other. {MARK_IT}("toy-o',
    ),
    "with a used number": Defect(
        POST, "y = 2 x", "y = 2 x \\label{toy-double}", "\\label", "equation toy-double is at docs/p"
    ),
    "outside of a formula": Defect(
        POST, "# Toy\n", "# Toy \\label{x}\n", "# Toy \\", "a \\label outside of a formula. Put it"
    ),
    "only in a marker": Defect(
        TESTS,
        MARKER,
        f'{MARKER}\n@pytest.mark.equation("toy-duoble")',
        "def test",
        "no page has the equation toy-duoble that this test checks. Write toy-double",
    ),
    "in a marker without a name": Defect(
        TESTS, '"toy-double", of', "pytest.name, of", "def test", "the marker's id is not written"
    ),
}
TYPED = {
    f"typed {typed}": Defect(
        POST,
        "less than 0.97",
        f"less than\n{typed}, then",
        typed,
        f"{typed} is typed by hand, but is a result. Write {{{{ Toy: {mend} }}}}",
    )
    for typed, mend in {
        "0.251": "loss | .3f",
        "0.25": "loss | .2f",
        "25.1%": "loss | .1%",
        "25 %": "loss | .0%",
        "2.51e-1": "loss | .2e",
        "1,500": "steps | ,",
        "1500": "steps",
        "312.4": "seconds.0 | .1f",
    }.items()
}
TYPED |= {
    f"nearly {typed}": Defect(
        POST, "less than 0.97", f"less than\n{typed}, then", typed, f"{typed} is typed by hand, and nearly the result"
    )
    for typed in ("0.252", "25.2%", "312.9")
} | {
    "percent": Defect(
        POST, "loss | .2f }},", "loss | .1f }} %,", "The loss", "{{ Toy: loss | .1f }} % puts a percent sign behind"
    )
}
REQUESTS = {
    asked: Defect(POST, "# Toy\n", f"# Toy\n\nText.\n\n{asked}\n", asked, ASKED)
    for asked in (
        f'<script src="{HOST}.js"></script>',
        f"<img alt='x' src='{HOST}.png'>",
        f'<link rel="stylesheet" href="{HOST}.css">',
        f'<iframe title="x" src="{HOST[6:]}"></iframe>',
        f"![x]({HOST}.png)",
        f"<style>@import '{HOST}.css';</style>",
        f"<style>p {{ background: url({HOST}.png) }}</style>",
    )
}
SEEN = {
    "no text": Defect(POST, PICTURE, "![](../figures/Toy/plot.svg)", "![](", NO_ALT),
    "only spaces": Defect(POST, PICTURE, "![ ](../figures/Toy/plot.svg)", "![ ](", NO_ALT),
    "no attribute": Defect(POST, PICTURE, f"{PICTURE}\n\n<img src='x.png'>", "<img", NO_ALT),
    "empty attribute": Defect(POST, PICTURE, f'{PICTURE}\n\n<img src="x.png" alt="">', "<img", NO_ALT),
    "on the card": Defect(POST, ", alt: A line}", "}", "picture:", "the card's picture has no alternative text. Say"),
    "in a lab": Defect(
        LAB,
        '"outputs": []',
        '"outputs": [{"output_type": "display_data", "metadata": {}, "data": {"image/png": ""}}]',
        '"cell_type"',
        "the picture that this cell draws has no alternative text. Give the cell one in its metadata",
    ),
}
LABS = {
    "stale code": Defect(
        TOY, "y = 2 * x ", "y = x * 2 ", "def double", "double changed after the lab of Toy ran. Run: make relab"
    ),
    "stale cell": Defect(
        LAB, "import double", "import double as d", '"from', "cell 2 changed after the lab of Toy ran. Run:"
    ),
    "not run": Defect(
        LAB, '_count": 2', '_count": null', '"cell_type"', "the cell was not run after the one before it. Run:"
    ),
    "error": Defect(
        LAB,
        '"outputs": []',
        '"outputs": [{"output_type": "error", "ename": "KeyError"}]',
        '"cell_type"',
        "the cell ended with KeyError. Mend it, and: make lab POST=Toy",
    ),
    "value by hand": Defect(
        "docs/results/Toy.json", "0.2512", "0.2513", '"loss"', "loss is 0.2513, but the lab printed 0.2512. Undo this"
    ),
    "value by hand, where the lab has it": Defect(
        LAB, "1500", "1501", '"steps"', "steps is 1500, but the lab printed 1501. Undo this", "docs/results/Toy.json"
    ),
    "value added": Defect(
        "docs/results/Toy.json",
        '"steps"',
        '"rate": 0.5,\n  "steps"',
        '"rate"',
        "rate is 0.5, but the lab printed no such",
    ),
    "value removed": Defect(
        "docs/results/Toy.json",
        '"steps": 1500,',
        "",
        "{",
        "the lab printed steps, which is missing here. Run: make lab",
    ),
    "no figure": Defect(
        POST, "plot.svg)", "plto.svg)", "![A", "there is no docs/figures/Toy/plto.svg. Draw it in the lab"
    ),
    "figure by hand": Defect(
        FIGURE, SVG, SVG.replace("9", "8"), "<svg", "this file is not the one that the lab of Toy wrote. Run:"
    ),
}
LAST = ':main"\n```\n'  # of the page
LINE = "    y = 2 * x  # (B, D) twice as large"
FAULTS = {
    f"fault {name}": Defect(POST, LAST, LAST + FAULT.replace(old, new), at, message)
    for name, old, new, at, message in (
        (
            "whose line is gone",
            "-    y = 2",
            "-    y = 4",
            "-    y",
            f"the line '{LINE.strip().replace('2', '4')}' is not in",
        ),
        ("whose line is there often", f"-{LINE}", "-", "-", "the line '' is "),
        (
            "that changes nothing",
            "+    y = 3",
            "+    y = 2",
            "-    y",
            "this fault changes no line of the page's code.",
        ),
        ("without a sign", "+    y = 3", "y = 3", "-    y", "'y = 3 * x  # (B, D) twice as large' begins with no sign"),
        ("of an unknown test", "test_double", "test_dubel", "-    y", f"there is no {TESTS}::test_dubel. Name the"),
        ("without a test", f" {TESTS}::test_double", "", "-    y", "a fault names its test. Write ```diff tests/"),
    )
}
OUTPUTS = {
    "path in a lab": Defect(
        LAB, "steps: 1500", "steps: 1500\\nin /home/ann/a.png", '"steps', "a path of one machine was printed, /home/ann"
    ),
    "path in a record": Defect(
        RECORD, "12.0", r"12.0 C:\\Users\\ann", '"12.0', "a path of one machine was printed, C:\\Users\\ann. Print"
    ),
    "program changed": Defect(
        TOY, "STEPS = 3", "STEPS = 4", "{{ program", "the program changed after its run was recorded. Run: make", POST
    ),
    "record by hand": Defect(RECORD, "12.0", "13.0", "{", "the record was edited by hand. Run: make record POST=Toy"),
}
LETTERS = '# Toy\n\n??? note "Symbols"\n    | symbol | meaning |\n    | --- | --- |\n    | {} | numbers |\n'
ALL = OUTPUTS | SECTIONS | FENCES | EQUATIONS | TYPED | REQUESTS | SEEN | LABS | FAULTS
ALL |= {
    "hearsay": Defect(
        POST, "# Toy\n", "# Toy\n\nIn trials it fell.\n", "In trials", "'In trials' quotes what no lab recorded"
    ),
    "CRLF page": Defect(POST, "# Toy\n", "# Toy\r\n", "# Toy", "the line ends with CR and LF. Save the file with LF"),
    "CRLF module": Defect(TOY, "STEPS = 3\n", "STEPS = 3\r\n", "STEPS", "the line ends with CR and LF. Save the file"),
    "look-alike letter": Defect(POST, "The loss is", "\u0422he loss is", "\u0422he", "'\u0422h' mixes alphabets (U+04"),
    "Greek": Defect(POST, "The loss is", "The loss \u03c3 is", "The loss", "\u03c3 stands outside of a formula. Write"),
    "symbol without a row": Defect(
        POST,
        "# Toy\n",
        LETTERS.format("$x$, $y$") + "\nAnd $z$.\n",
        "And $z$",
        "the list of symbols lacks z. Add a row",
    ),
    "symbol without a formula": Defect(
        POST,
        "# Toy\n",
        LETTERS.format("$x$, $y$, $z$"),
        "??? note",
        "the list of symbols has z, which no formula has. Take",
    ),
    "nothing to read first": Defect(
        POST, "first: {}", "first: 3", "first:", "what to read first is not said. Write first:"
    ),
    "read first by hand": Defect(
        POST, "{{ read first }}", "**Read first:** x. {{ read first }}", "first:", "**Read first:** is on the page 2"
    ),
    "BibTeX of the template": Defect(
        POST, "# Toy\n", f"# Toy\n@article{{{TODO[:4]},\n", "@article", f"'@article{{{TODO[:4]}' is left. Write"
    ),
    "heavy picture": Defect(FIGURE, SVG, SVG + " " * 300_000, "<svg", "the picture weighs 293 KiB, more than 200."),
    "left to be written": Defect(
        POST, "# Toy\n", f"# Toy\n{TODO}\n", TODO, f"{TODO!r} is left. Write what it asks for"
    ),
    "foreign import": Defect(
        TOY, "STEPS = 3", "import scipy\n\nSTEPS = 3", "import scipy", "a reader may not have scipy. Use"
    ),
    "no docstring": Defect(
        TOY, "def double", "def bare(): ...\n\n\ndef double", "def bare", "bare has no docstring. Say"
    ),
    "no description": Defect(POST, "description: A toy.", "description:", "desc", "no description. Write it in the"),
    "no badge": Defect(
        POST, "badge: {label: Toy,", "badge: {", "badge:", "no badge. Write badge: {label: DDPM, message:"
    ),
    "no such picture": Defect(
        POST, "file: figures/Toy/p", "file: figures/p", "picture:", "no picture, or one that is not"
    ),
    "no such module": Defect(
        POST, "module: snippets/toy", "module: snippets/yot", "module:", "the module snippets/yot.py does"
    ),
    "another module": Defect(
        POST, "snippets/toy.py\nd", "snippets/__init__.py\nd", "module:", "the page shows nothing of its"
    ),
    "malformed shape comment": Defect(
        TOY, "(B, D) twice", "(B, N) twice", "y =", "the letter N of (B, N) is not declared. Add"
    ),
}


def problems(root: Path) -> list[str]:
    """What all checks of sources and labs say."""
    found = [problem for check in CHECKS.values() for problem in check(root)] + shapes.problems(root)
    found += [problem for path in test_house.snippets(root) for problem in test_house.problems(path, root)]
    found += [problem for page in posts(root) for problem in record.stale(page, root)]
    return found + [problem for check in (notebooks, stale, sealed, outputs, figures) for problem in check(root)]


def test_a_project_without_a_defect_has_no_problem(tree):
    assert problems(tree) == []


@pytest.mark.parametrize("defect", ALL)
def test_a_defect_is_told_with_file_line_and_mend(defect, tree):
    ALL[defect].plant(tree)
    expected = ALL[defect].expected(tree)
    found = problems(tree)
    assert any(problem.startswith(expected) for problem in found), "\n".join([expected, "not in", *found])


PROGRAMS = {
    "print('seen')": None,
    "open('seen.png', 'w').close()": None,
    "STEPS = 5\nif STEPS == 2: print(2)": None,  # as quick: has it
    "x = 1": "the program ends with nothing to see",
    "import snippets": "No module named 'snippets'",
    "open('docs/index.md')": "No such file or directory: 'docs/index.md'",
    "import warnings\nprint(warnings.warn('old', DeprecationWarning))": "DeprecationWarning: old",
    "import time\ntime.sleep(9)": "x.md:1: the program takes more than 0.5 s. Make it smaller",
}


@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_that_readers_cannot_run_is_told(code, tmp_path, monkeypatch):
    page = Page(ROOT / "x.md", "x", {"quick": {"STEPS": 2}}, "", 1)
    monkeypatch.setattr(test_programs, "program", lambda page: "STEPS = 3\n" * ("STEPS =" not in code) + code)
    monkeypatch.setattr(test_programs, "LIMIT", 0.5 if "sleep" in code else 60)
    check = test_programs.test_the_program_runs_in_an_empty_folder
    if PROGRAMS[code] is None:
        return check(page, tmp_path)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(PROGRAMS[code])):
        check(page, tmp_path)


def test_quick_removes_no_work(tmp_path, monkeypatch):
    code = "def f(): pass\ndef g(): pass\nSTEPS = 3\nfor step in range(STEPS):\n    f()\n    if step: g()\nprint(1)"
    whole = {"functions": ["f", "g"], "code": record.fingerprint(code), "compiler": record.COMPILER}
    monkeypatch.setattr(test_programs, "ROOT", tmp_path)
    monkeypatch.setattr(test_programs, "program", lambda page: code)
    monkeypatch.setattr(test_programs.records, "load", lambda root, key: whole)
    check = test_programs.test_the_program_runs_in_an_empty_folder
    write(tmp_path, "x.md", "---\ntitle: X\nquick: {STEPS: 1}\n---\n")
    check(Page(tmp_path / "x.md", "x", {"quick": {"STEPS": 2}}, "", 1), tmp_path)
    for steps, told in {
        0: "x.md:3: quick: sets STEPS to 0, which removes work. Give it at least 1",
        1: "x.md:3: shortened by quick:, the program no longer enters g. Give larger values",
    }.items():
        with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(told)):
            check(Page(tmp_path / "x.md", "x", {"quick": {"STEPS": steps}}, "", 1), tmp_path)
    assert list(test_programs.numbers([1, {"a": 0.5}, "b", None])) == [1, 0.5]


def test_a_page_without_a_record_is_told(tree):
    (tree / RECORD).unlink()
    line = (tree / POST).read_text().split("\n").index("{{ program }}") + 1
    assert problems(tree) == [f"{POST}:{line}: the page's program has no recorded run. Run: make record POST=Toy"]
    replace(tree, POST, "{{ program }}\n", "")
    told = f"{POST}:1: the page does not show what its program prints. Add a line: {{{{ program }}}}"
    assert problems(tree) == [told]


def test_a_module_without_a_test_is_told(tree):
    (tree / TESTS).rename(tree / "tests/snippets/test_other.py")
    assert f"{TOY}:1: the module has no test. Write {TESTS}" in problems(tree)


def test_a_page_with_much_open_code_is_told(tree):
    """Thirty-one times the same block; folded, they are no burden."""
    page = tree / POST
    block = re.search(r"^```python\n.*?^```\n", page.read_text(), re.M | re.S)[0]
    page.write_text(page.read_text() + f"\n{block}" * 31)
    told = [problem for problem in problems(tree) if "lie open" in problem]
    assert len(told) == 1 and re.search(
        rf"^{POST}:\d+: 3\d blocks of code with \d+ lines lie open. At most 30", told[0]
    )
    page.write_text(page.read_text().replace("```python\n", "```python fold\n"))
    assert not [problem for problem in problems(tree) if "lie open" in problem]


@pytest.mark.parametrize(
    "text",
    [
        "0.97 and 0.263 and 1501 and 25 and 0.3",  # other numbers, or too round to tell
        "in 2020, `0.251`, $0.251$, [a](0.251)\n\n$$\n0.251\n$$",
        "<span title='0.251'>a</span>, a-0.251b, v0.251.3, arXiv 1500.0251",
        "```text\n0.251\n```",
        "<!-- 0.251 -->{ .wide width=1500 }",
        '<a href="https://example.org">a</a>, [b](https://example.org), `<img src="https://example.org">`',
        '<link rel="canonical" href="https://example.org">',
    ],
)
def test_what_is_no_defect_is_left_alone(text, tree):
    replace(tree, POST, "less than 0.97", f"less than\n\n{text}\n\n")
    assert problems(tree) == []


@pytest.fixture
def taught(tree) -> Path:
    """The project with an exercise and a fault on its page."""
    for name in EXERCISE_FILES:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    write(tree, "snippets/exercises/toy.py", EXERCISES)
    write(tree, "tests/snippets/exercises/test_toy.py", ANSWERS)
    replace(tree, POST, LAST, LAST + FAULT + SOLUTION)
    return tree


def test_exercises_and_faults_without_a_defect_have_no_problem(taught):
    assert problems(taught) == []


TOYS, OTHER = "snippets/exercises/toy.py", "```python library"
MORE = "    return y\n\n\ndef more(): ...\n"
INCOMPLETE = {
    "no hint": Defect(TOYS, "Hint: ", "Clue: ", "def fourfold", "fourfold has no hint. Write a docstring: the task"),
    "no check": Defect(TOYS, "check_1", "check_2", "def fourfold", "nothing checks fourfold. Write check_1(answer)"),
    "two functions": Defect(TOYS, "    return y\n", MORE, "def more", "exercise-2 with one function is expected"),
    "not on the page": Defect(POST, ":exercise-1", ":exercise-2", "---", "the page shows exercise-2. Include exercise"),
    "starter not linked": Defect(POST, "](Toy/Toy_ex", "](Toy/ex", "---", "the page does not link the starter. Write"),
}


@pytest.mark.parametrize("defect", INCOMPLETE)
def test_an_incomplete_exercise_is_told(defect, taught):
    INCOMPLETE[defect].plant(taught)
    expected, found = INCOMPLETE[defect].expected(taught).replace(f"{POST}:9:", f"{POST}:1:"), problems(taught)
    assert any(problem.startswith(expected) for problem in found), "\n".join([expected, "not in", *found])


def test_a_check_that_accepts_all_and_a_fault_that_no_test_notices_fail_the_suite(taught):
    replace(taught, TOYS, "answer(ones(3, 2)), 4 * ones", "4 * ones(3, 2), 4 * ones")
    replace(taught, POST, "+    y = 3 * x", "+    y = x + x")
    files = ("pages/test_exercises.py", "pages/test_breakages.py", "snippets/exercises/test_toy.py")
    status, output = suite(taught, *(f"tests/{name}" for name in files))
    assert status == 1, output
    here = "AssertionError: " + Defect(TOYS, "", "", "def fourfold", "").expected(taught)
    assert told(output, f"{here}the empty starter is told 'right', not 'not yet'. Let check_1 call the answer"), output
    assert told(output, f"{here}check_1 says of an answer that is not written: right. Let it call the answer"), output
    here = Defect(POST, "", "", "-    y = 2", "").expected(taught)
    assert told(output, f"{here}the test {TESTS}::test_double passes with this fault. Name the test that"), output


def suite(root: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in a project: exit status and output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "REQUIRE"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def told(output: str, message: str) -> bool:
    """Whether a line of the output begins with the message, but for pytest's margin."""
    return re.search(rf"^(?:E\s+)?{re.escape(message)}", output, re.M) is not None


def test_a_suite_without_a_defect_passes_and_is_reported(tree):
    status, output = suite(tree, "--complete", "-n", "1")  # proof comes from another process
    assert status == 0, output
    assert "shape comments proved: snippets/toy.py 1" in output
    written = report.load(tree)["posts"]["Toy"]
    (oracle,) = written.pop("oracles")
    assert re.fullmatch(r"torch [\d.]+\S* add", oracle["name"])
    assert 0 <= oracle["difference"] <= oracle["tolerance"] == 1e-5
    counts = {"tests": 6, "equations": 1, "evaluated": 1, "pinned": 0, "shape_comments": 1}
    assert written == counts | {"claims": 0, "exercises": 0, "breakages": 0}
    replace(tree, POST, "# Toy\n", "# A toy\n")
    assert report.load(tree) is None  # the report speaks of another tree


def test_each_kind_of_defect_fails_the_suite(tree):
    """One defect for each check, all at once: each check fails by itself, with its message."""
    names = ["trailing space in a mark", "directive without quotes", "fence ```py", "unknown", "without a test"]
    names += ["only in a marker", "typed 0.251", f"![x]({HOST}.png)", "no text", "left to be written", "stale code"]
    names += ["not run", "figure by hand", "value by hand", "malformed shape comment", "foreign import", "no docstring"]
    for name in names:
        ALL[name].plant(tree)
    status, output = suite(tree, "tests/pages/test_sources.py", "tests/labs", "tests/test_house.py")
    assert status == 1
    for name in names:
        assert told(output, ALL[name].expected(tree)), f"{name}\n{output}"


def test_a_wrong_shape_comment_and_a_broken_program_fail_the_suite(tree):
    replace(tree, TOY, "# (B, D) twice", "# (D, B, 1) twice")
    replace(tree, TOY, "sum().item())", "sum().item(), double(None))")
    status, output = suite(tree, "--complete")
    assert status == 1
    assert told(output, "snippets/toy.py:16: y is (3, 2), the comment says (D, B, 1). Correct the comment or"), output
    assert told(output, "AssertionError: docs/posts/Toy.md:1: the program fails:"), output
    assert not (tree / report.REPORT).exists()


def test_a_wrong_docstring_and_ours_against_ours_fail_the_suite(tree):
    replace(tree, TOY, '"""Twice x."""', '"""Twice x (D, B, 1)."""')
    ours = TEST.replace("torch.add(x, x), oracle", "double(x).clone(), oracle")
    ours = re.sub(r"@pytest.*\n", "", ours).replace(", formula", "").partition("    formula")[0]
    write(tree, "tests/snippets/test_ours.py", ours)
    status, output = suite(tree, "tests/snippets")
    assert status == 1
    assert told(output, "snippets/toy.py:15: x is (3, 2), the docstring says (D, B, 1) with B = 3, D = 2."), output
    assert told(output, "AssertionError: no code of torch.add ran. Compute theirs with it, in the test or in"), output


def test_shape_comments_that_no_test_proves_fail_the_suite(tree):
    more = "    if len(y) > 99:\n        y = y[:99]  # (99, D)\n    z = y.T\n    s = y @ y.T  # (B, B)\n"
    replace(tree, TOY, "    return y\n", f"{more}    w = y[:2]  # (2, D)\n    return y\n")
    shutil.rmtree(tree / "tests/labs")  # whose results are stale now
    (tree / "tests/pages/test_programs.py").unlink()  # which takes its time
    status, output = suite(tree, "--complete")
    assert status == 1, output
    lines = output[output.index("shape comments without proof") :]
    assert told(lines, "snippets/toy.py:18: the shape comment (99, D) is reached by no test. Test the line"), output
    assert told(lines, "snippets/toy.py:19: the line makes a tensor. End it with its shape"), output
    assert told(lines, "snippets/toy.py:21: the shape comment (2, D) is only reached with 2 = D = 2."), output
    assert lines.count("snippets/toy.py:") == 3
    assert not (tree / report.REPORT).exists()


def test_complete_is_for_the_whole_suite(tree):
    status, output = suite(tree, "--complete", "-k", "sources")
    assert status == pytest.ExitCode.USAGE_ERROR and "--complete is for the whole suite" in output
