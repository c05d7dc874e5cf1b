"""`make new`: what it writes passes every test and builds at once, but for the TODOs, which a test names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import shapes
from tests.labs import checks as labs
from theme.page.checks import CHECKS
from theme.page.pages import ROOT, posts
from tools import new

KEY, MODULE = "LLM/FreshPost", "snippets/llm/fresh_post.py"
MADE = [MODULE, f"docs/posts/{KEY}.md", f"docs/labs/{KEY}.ipynb", "tests/snippets/llm/test_fresh_post.py"]
MADE += ["snippets/exercises/llm/fresh_post.py", "tests/snippets/exercises/llm/test_fresh_post.py"]
LEFT = "nothing is left to be written"
APART = {".git", ".venv", "node_modules", "site", ".verified", "lab-output"}


def python(root: Path, *args: str) -> subprocess.CompletedProcess:
    """Run a module in another tree."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run([sys.executable, "-m", *args], cwd=root, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of this tree with a new post."""
    root = tmp_path_factory.mktemp("new") / "tree"

    def apart(folder, names):
        return [n for n in names if n == "__pycache__" or n.endswith("_cache") or (n in APART and folder == str(ROOT))]

    shutil.copytree(ROOT, root, ignore=apart)
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    made = python(root, "tools.new", KEY)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.startswith("\n  ".join(["made:", *MADE]))
    assert f"http://127.0.0.1:8000/posts/{KEY}/" in made.stdout
    return root


def test_only_the_todos_are_wrong(tree):
    checks = CHECKS | {one.__name__: one for one in (labs.notebooks, labs.stale, labs.figures, shapes.problems)}
    found = {name: check(tree) for name, check in checks.items()}  # of ROOT, other tests say that there is none
    todos = found.pop(LEFT)
    assert not any(found.values()), found
    assert {line.partition(":")[0] for line in todos} == set(MADE)


def test_the_suite_names_each_todo(tree):
    done = python(tree, "pytest", "-q", "tests/pages/test_sources.py", "-k", "nothing and written")
    assert done.returncode == 1, done.stdout
    for path in MADE:
        first = next(n for n, line in enumerate((tree / path).read_text().splitlines(), 1) if "TODO" in line)
        assert f"{path}:{first}: " in done.stdout


def test_its_own_tests_pass_and_prove_every_shape(tree):
    paths = " ".join(path for path in MADE if path.startswith("tests/"))
    done = python(tree, "pytest", "-q", "-o", f"testpaths={paths}", "--complete")
    assert re.search(r"^\d+ passed", done.stdout, re.M), done.stdout
    assert "fresh_post.py:" not in done.stdout, done.stdout


def test_its_program_its_exercises_and_its_fault_are_right(tree):
    done = python(tree, "pytest", "-q", "tests/pages", "-k", KEY)
    assert done.returncode == 0, done.stdout


def test_it_builds_strictly(tree):
    built = python(tree, "mkdocs", "build", "--strict", "--quiet")
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tree / "site/posts" / KEY / "index.html").read_text()
    assert 'id="eq-fresh-post-attention"' in page
    assert f'href="../../../source/{MODULE}/' in page


def test_style(tree):
    code = [path for path in MADE if not path.endswith(".md")]
    for check in (["check"], ["format", "--check"]):
        done = python(tree, "ruff", *check, *code)
        assert done.returncode == 0, done.stdout


def test_nothing_is_overwritten(tree):
    before = {path: (tree / path).read_bytes() for path in MADE}
    again = python(tree, "tools.new", KEY)
    assert (again.returncode, again.stderr) == (1, f"{MODULE} exists; nothing was written\n")
    assert before == {path: (tree / path).read_bytes() for path in MADE}


@pytest.mark.parametrize("key", ["", "a b", "../x", "LLM/", "/x", "1x", "É", "Lambda", "x.md"])
def test_names_that_are_none(key):
    with pytest.raises(ValueError, match="given"):
        new.module_of(key)


def test_a_module_does_not_hide_a_package(tmp_path):
    (tmp_path / "snippets/data").mkdir(parents=True)
    with pytest.raises(ValueError, match="snippets/data/ exists"):
        new.create("Data", tmp_path)


def test_modules_of_posts():
    names = {"MixtureOfExperts": "mixture_of_experts", "LLM/KVCache": "llm/kv_cache", "Flow-Matching": "flow_matching"}
    assert {key: new.module_of(key) for key in names} == names
    for page in posts():
        assert page.meta["module"] == f"snippets/{new.module_of(page.key)}.py"
