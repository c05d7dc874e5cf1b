"""Each page's program, run as its reader would run it: alone, in an empty folder, without this repository."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from theme.page import records
from theme.page.pages import ROOT, key_line, posts, program, with_constants
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
