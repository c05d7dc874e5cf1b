"""A page's notebook, run from top to bottom as its reader would."""

import nbformat
from nbclient import NotebookClient

from theme.around import taken
from theme.page import equations, notebook, records
from theme.page.pages import ROOT, constants, posts, with_constants

LIMIT = 120  # seconds


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
