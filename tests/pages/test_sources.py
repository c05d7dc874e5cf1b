"""The pages' sources: what is printed is tested, equations have tests, numbers come from runs, nobody else is asked."""

import os
import re
import subprocess
import sys

import markdown
import pytest

from theme.page.checks import CHECKS
from theme.page.code import programs_import
from theme.page.pages import ROOT, SNIPPET_OPTIONS, expand, posts


@pytest.mark.parametrize("check", CHECKS)
def test_sources(check):
    problems = CHECKS[check](ROOT)
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_the_page_imports_what_a_reader_has(page):
    allowed = set(sys.stdlib_module_names) | {"torch", "numpy", "sklearn", "matplotlib", "PIL", "tqdm", "safetensors"}
    assert programs_import(page, ROOT) <= allowed


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


def test_an_include_is_expanded_as_pymdownx_does():
    options = {"pymdownx.snippets": {**SNIPPET_OPTIONS, "base_path": [str(ROOT)]}}
    theirs = markdown.Markdown(extensions=["pymdownx.snippets"], extension_configs=options).preprocessors["snippet"]
    for post in posts():
        assert expand(post.text) == "\n".join(theirs.run(post.text.split("\n"))), post.key
