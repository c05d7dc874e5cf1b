"""The pages' sources: what is printed is tested, equations have tests, numbers come from runs, nobody else is asked."""

import os
import re
import subprocess
import sys

import pytest

from tests.pages import checks
from theme.page.pages import ROOT, posts

CHECKS = {
    "sections are opened once and closed": lambda root: checks.sections(root)[1],
    "fences hold code that is run": checks.fences,
    "includes": checks.includes,
    "every python block runs": checks.unseen_blocks,
    "numbered equations have tests": checks.equations,
    "numbers come from runs": checks.typed_numbers,
    "pictures have alternative text": checks.alternative_text,
    "no other host is asked": lambda root: checks.third_party(checks.sources(root), root),
    "nothing is left to be written": checks.unfinished,
    "front matter": checks.front_matter,
}


@pytest.mark.parametrize("check", CHECKS)
def test_sources(check):
    problems = CHECKS[check](ROOT)
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_the_page_imports_what_a_reader_has(page):
    allowed = set(sys.stdlib_module_names) | {"torch", "numpy", "sklearn", "matplotlib", "PIL", "tqdm", "safetensors"}
    assert checks.programs_import(page, ROOT) <= allowed


DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "docs/contributing.md") if path.is_file()]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_python_of_our_own_documents_runs(document, tmp_path):
    text = document.read_text(encoding="utf-8")
    code = "\n".join(blocks(text, "python"))
    assert len(blocks(text, "python")) == len(re.findall(r"^\s*(?:`{3,}|~{3,})\W*py", text, re.M)), "write ```python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_our_own_documents_exist(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.M))
    shell = "\n".join(blocks(document.read_text(encoding="utf-8"), "bash"))
    named = set(re.findall(r"^\s*(?:\$ )?make ([a-z][\w-]*)", shell, re.M))
    assert named <= targets
    for path in re.findall(r"\b(?:tools|tests|docs|snippets|theme)/[\w/.-]+\.(?:py|md|yml|ipynb)\b", shell):
        assert (ROOT / path).exists(), f"{document.name} names {path}, which does not exist"
