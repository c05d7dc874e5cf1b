"""`make relab`, on a project of its own: what changes no number is checked again, what changes one is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from theme.page.pages import ROOT, with_constants
from tools import labs, relab
from tools.lab import spread

MODULE = '''"""A toy."""

SCALE = 2.0
SAMPLES = 1000


def double(x):
    """Twice x."""
    result = min(SCALE * x, 5_000_000)
    if result < 0:
        raise ValueError("not negative")
    return result


def mean():
    return sum(double(i) for i in range(SAMPLES)) / SAMPLES
'''
CELLS = [
    "import sys\nimport time\nfrom snippets.toy import double, mean\nfrom tools.lab import Lab\n\n"
    "STEPS, NAMES = 500_000, {'a', 'b'}\nlab = Lab('Toy')\nprint('a bar', file=sys.stderr)",
    "start = time.perf_counter()\ntotal = sum(double(i) for i in range(STEPS))\n"
    "lab.record('seconds', time.perf_counter() - start)\nlab.record('total', total)\nlab.record('mean', mean())\n"
    "lab.record('names', sorted(NAMES))",
    "def draw(figure):\n    figure.subplots().plot([1, double(2)])\n\n\nlab.figure('plot.svg', draw)\n"
    "lab.figure('plot.png', draw)",
    "lab.done()",
]
QUICK = {"STEPS": 10, "snippets/toy.py:SAMPLES": 8, "NAMES": ["a"]}


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def notebook(root: Path, cells: list[str], quick: dict | None) -> None:
    kind = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    made = [kind | {"id": f"c{n}", "source": cell.splitlines(keepends=True)} for n, cell in enumerate(cells)]
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    metadata |= {"quick": quick} if quick is not None else {}
    written = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (root / "docs/labs/Toy.ipynb").write_text(json.dumps(written))


def command(root: Path, *arguments: str) -> str:
    """What `python -m tools.labs …` says in a project, after its status."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = [sys.executable, "-m", "tools.labs", *arguments]
    done = subprocess.run(run, cwd=root, env=env, capture_output=True, text=True)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project whose lab has run, all committed."""
    root = tmp_path_factory.mktemp("relab") / "project"
    for folder in ("tools", "theme"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("docs/labs", "docs/posts", "snippets"):
        (root / folder).mkdir(parents=True)
    (root / "snippets/__init__.py").touch()
    (root / "snippets/toy.py").write_text(MODULE)
    (root / ".gitignore").write_text("__pycache__\nlab-output\n.lab-cache\n")
    notebook(root, CELLS, None)
    said = command(root, "run", "Toy")
    assert "written: docs/labs/Toy.ipynb" in said and "a bar" in said, said
    executed = json.loads((root / "docs/labs/Toy.ipynb").read_text())
    assert {one["name"] for cell in executed["cells"] for one in cell["outputs"] if "name" in one} == {"stdout"}
    assert not list((root / "lab-output/Toy").iterdir()), "what was published is not left behind"
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    return root


@pytest.fixture
def toy(project, tmp_path) -> Path:
    """A copy of that project to change."""
    shutil.copytree(project, tmp_path / "toy")
    notebook(tmp_path / "toy", CELLS, QUICK)
    return tmp_path / "toy"


def replace(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text()
    assert text.count(old) == 1
    (root / path).write_text(text.replace(old, new))


def results(root: Path) -> dict:
    return json.loads((root / "docs/results/Toy.json").read_text())


def test_a_small_budget_in_the_metadata_makes_no_lab_stale(toy):
    assert command(toy, "relab", "Toy") == "0\nToy: nothing has changed\n"


def test_a_change_that_changes_no_number_gives_new_fingerprints(toy):
    before = results(toy)
    (toy / "snippets/toy.py").write_text(MODULE.replace("result", "twice").replace("not neg", "no neg"))
    said = command(toy, "relab")
    assert said.startswith("0\n") and "Toy: 4 values and 4 files unchanged" in said, said
    after = results(toy)
    assert after["values"] == before["values"] and after["code"] != before["code"] and "rechecked" in after
    assert after["date"] == before["date"] and after["files"] == before["files"]
    assert command(toy, "relab") == "0\nToy: nothing has changed\n"
    assert len(list((toy / ".lab-cache/Toy").iterdir())) == 1
    git(toy, "commit", "-qam", "renamed")
    (toy / "snippets/toy.py").write_text(MODULE.replace("result", "thrice"))
    said = command(toy, "relab")
    assert said.startswith("0\n") and said.count("ran on its small budget") == 1, "the old run was kept"


def test_a_value_that_became_a_timing_is_moved(toy):
    cells = [cell.replace("lab.record('seconds'", "lab.timing('seconds'") for cell in CELLS]
    notebook(toy, cells, QUICK)
    seconds = results(toy)["values"]["seconds"]
    assert command(toy, "relab").startswith("0\n")
    assert "seconds" not in results(toy)["values"] and results(toy)["timings"] == {"seconds": seconds}


CHANGES = {
    "a constant of the module": (
        "snippets/toy.py",
        "SCALE = 2.0",
        "SCALE = 2.5",
        "mean: 7.0 as it was, 8.75 now\n  total: 90.0 as it was, 112.5 now\n  figures/plot.dark.png: not the same file",
    ),
    "a constant that matters late": (
        "snippets/toy.py",
        "5_000_000",
        "6_000_000",
        "(make lab POST=Toy):\n  snippets/toy.py: double has 6000000 where it had 5000000\n",
    ),
    "a cell": ("docs/labs/Toy.ipynb", "'total', total", "'total', total + 1", "total: 90.0 as it was, 91.0 now"),
    "a value less": (
        "docs/labs/Toy.ipynb",
        "lab.record('mean', mean())",
        "mean()",
        "mean: 7.0 as it was, not recorded",
    ),
    "a figure": (
        "docs/labs/Toy.ipynb",
        "[1, double(2)]",
        "[1, double(2), 3]",
        "figures/plot.dark.png: not the same file\n  figures/plot.dark.svg: not the same file",
    ),
    "what the budget replaces": ("docs/labs/Toy.ipynb", "500_000", "600_000", "lab.py: STEPS was 500000 and is 600000"),
    "what the budget replaces in a module": (
        "snippets/toy.py",
        "SAMPLES = 1000",
        "SAMPLES = 2000",
        "snippets/toy.py: SAMPLES was 1000 and is 2000",
    ),
    "an error": (
        "snippets/toy.py",
        "    return result",
        "    return resutl",
        "NameError: name 'resutl' is not defined",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_a_number_is_named(name, toy):
    before = results(toy)
    path, old, new, wanted = CHANGES[name]
    replace(toy, path, old, new)
    said = command(toy, "relab", "Toy")
    assert said.startswith("1\n") and "Toy: the lab has to run (make lab POST=Toy):" in said and wanted in said, said
    assert results(toy) == before


def test_without_a_budget_or_a_past_the_lab_has_to_run(toy):
    replace(toy, "snippets/toy.py", "SCALE * x", "x * SCALE")
    git(toy, "checkout", "-q", "docs/labs/Toy.ipynb")
    assert "metadata name no small budget, quick" in command(toy, "relab")
    notebook(toy, CELLS, QUICK | {"MORE": 1})
    assert "quick: names ['MORE'], which no line of the code assigns" in command(toy, "relab")
    notebook(toy, CELLS, QUICK | {"STEPS": 0})
    assert "STEPS: 0 is no small budget, but none" in command(toy, "relab")
    notebook(toy, CELLS, QUICK)
    written = results(toy)
    written["code"]["snippets/toy.py"]["double"] = "0"
    (toy / "docs/results/Toy.json").write_text(json.dumps(written))
    assert "no commit has the code that its results were made with" in command(toy, "relab")


def test_constants_are_replaced_where_they_are_first_assigned():
    code = "A, B = 1, 2\nC = [\n    1,\n    2,\n]  # all\nD = {'é'}; E = 5\nA = 3\n"
    short = with_constants(code, {"B": 7, "C": [1], "D": 0, "E": 6})
    assert short == "A, B = 1, 7\nC = [1]  # all\n\n\n\nD = 0; E = 6\nA = 3\n"
    with pytest.raises(ValueError, match=r"quick: names \['X', 'Y'\], which no line"):
        with_constants(code, {"X": 1, "Y": 2, "A": 3})


def test_values_agree_to_a_millionth():
    assert relab.same(1.0, 1.0000001) and not relab.same(1.0, 1.00001) and relab.same(0, 1e-13)
    assert relab.same({"a": [1, "x", True]}, {"a": [1, "x", True]}) and not relab.same({"a": 1}, {"b": 1})
    assert not relab.same([1, 2], [1]) and not relab.same("a", "b") and not relab.same(True, False)


def test_recorded_and_measured_values_stand_side_by_side():
    last = {"values": {"a": spread([1, 2, 3]), "b": 2.0, "c": "x", "d": 1}, "timings": {"t": 1.5}, "date": "2026-11-25"}
    now = {"values": {"a": spread([2, 3, 4]), "b": 2.5, "c": "x", "e": 1}, "timings": {"t": 3.0}, "date": "2026-11-26"}
    said = [" ".join(line.split()) for line in labs.compare(last, now)]
    assert said[0] == "recorded 2026-11-25 here"
    assert said[1:] == [
        "a 2 ± 1 3 ± 1 in the spread",
        "b 2 2.5 +25.0%",
        "c x x same",
        "d 1 not measured",
        "e 1 not recorded",
        "timings.t 1.5 3",
    ]
    now["values"]["a"] = spread([8, 9, 10])
    assert "OUT of the spread" in labs.compare(last, now)[1]


def test_compare_leaves_docs_as_they_are(toy):
    before = {path: path.read_bytes() for path in (toy / "docs").rglob("*") if path.is_file()}
    said = command(toy, "run", "Toy", "--compare")
    assert said.startswith("0\n") and "The lab of Toy took" in said and "cell 4 of 4" in said
    (line,) = [line for line in said.split("\n") if line.startswith("total ")]
    assert line.split() == ["total", "2.5e+11", "2.5e+11", "same"]
    assert before == {path: path.read_bytes() for path in (toy / "docs").rglob("*") if path.is_file()}
    assert not list((toy / "lab-output/Toy").iterdir())
