"""Each page's program, run as its reader would run it: alone, in an empty folder, without this repository."""

import os
import subprocess
from collections.abc import Iterator

import nbformat
import pytest
from nbclient import NotebookClient

from theme.around import taken
from theme.page import equations, notebook, records
from theme.page.pages import ROOT, constants, key_line, posts, program, with_constants
from tools import record

FULL = os.environ.get("FULL") == "1"  # `make test-full`: nothing replaced, all cores
LIMIT = 120  # seconds
each_page = pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)


@each_page
def test_the_program_runs_in_an_empty_folder(page, tmp_path):
    code, quick = program(page), {} if FULL else page.meta.get("quick") or {}
    for name, value in quick.items():
        if any(number < 1 for number in numbers(value)):
            wrong = f"quick: sets {name} to {value}, which removes work. Give it at least 1"
            pytest.fail(f"{key_line(page, ROOT, 'quick')}: {wrong}", False)
    file = f"{page.name}.py"
    try:
        done = record.run(with_constants(code, quick), file, tmp_path, LIMIT, None if FULL else 1)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{page.path.relative_to(ROOT)}:1: the program takes more than {LIMIT} s. Make it smaller", False)
    print(f"{page.key}: {done.seconds:.1f} s")
    assert done.status == 0, f"{page.path.relative_to(ROOT)}:1: the program fails:\n{done.errors[-3000:]}"
    written = {one.name for one in tmp_path.iterdir()} - {file}
    assert written or done.printed.strip(), "the program ends with nothing to see: let it print or save something"
    whole = records.load(ROOT, page.key)
    if whole and whole["code"] == record.fingerprint(code) and whole["compiler"] == record.COMPILER:
        skipped = ", ".join(sorted(set(whole["functions"]) - set(done.functions)))
        wrong = f"shortened by quick:, the program no longer enters {skipped}. Give larger values"
        assert not skipped, f"{key_line(page, ROOT, 'quick')}: {wrong}"


def numbers(value) -> Iterator[float]:
    """The numbers in a constant."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)


@each_page
def test_the_page_shows_what_its_program_prints(page):
    problems = record.stale(page)
    assert not problems, "\n" + "\n".join(problems)


def test_a_notebook_runs_from_top_to_bottom_and_shows_its_pictures(tmp_path):
    """One of them; that each has the code of its program, cell by cell, is tested in tests/site."""
    page = next(page for page in posts() if page.key == "LLM/Performer")
    known = {mark.id: mark for mark in equations.equations(posts(), ROOT)}
    text = taken.with_head_and_pictures(notebook.notebook(page, ROOT, known), ["x"], page, ROOT)
    book = nbformat.reads(text, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            quick = {name: value for name, value in page.meta["quick"].items() if name in constants(cell.source)}
            cell.source = with_constants(cell.source, quick)
    NotebookClient(book, timeout=LIMIT, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for cell in book.cells if "pictures" in cell.metadata.get("tags", ()) for output in cell.outputs]
    assert len(pictures) == len(records.load(ROOT, page.key)["pictures"]) >= 1
    assert all("image/png" in output.data for output in pictures)
