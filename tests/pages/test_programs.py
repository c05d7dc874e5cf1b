"""Each page's program, run as its reader would run it: alone, in an empty folder, without this repository."""

import os
import subprocess
import sys
import time

import pytest

from theme.page.pages import ROOT, posts, program, with_constants

FULL = os.environ.get("FULL") == "1"  # `make test-full`: nothing replaced, all cores
LIMIT = 120  # seconds


@pytest.mark.parametrize("page", posts(), ids=lambda page: page.key)
def test_the_program_runs_in_an_empty_folder(page, tmp_path):
    code = program(page)
    path = tmp_path / f"{page.name}.py"
    path.write_text(code if FULL else with_constants(code, page.meta.get("quick") or {}), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    if not FULL:
        environment["OMP_NUM_THREADS"] = "1"  # other tests run beside this one
    started = time.perf_counter()
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", path.name]
    try:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{page.path.relative_to(ROOT)}:1: the program takes more than {LIMIT} s. Make it smaller", False)
    print(f"{page.key}: {time.perf_counter() - started:.1f} s")
    assert done.returncode == 0, f"{page.path.relative_to(ROOT)}:1: the program fails:\n{done.stderr[-3000:]}"
    written = {one.name for one in tmp_path.iterdir()} - {path.name}
    assert written or done.stdout.strip(), "the program ends with nothing to see: let it print or save something"
