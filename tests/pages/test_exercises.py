"""Each page's exercises: the starter works beside the program in an empty folder, before and after it is filled in."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from theme.page.exercises import exercises, path_of, starter
from theme.page.pages import ROOT, posts, program

PAGES = [page for page in posts() if (ROOT / path_of(page)).is_file()]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.key)

# what a reader does, in one process, so that torch is imported once: prints [[status, output] of each run]
READER = """
import contextlib, io, json, runpy, sys
runs = []
for command in json.loads(sys.argv[1]):
    sys.argv = command
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            status = runpy.run_path(command[0], run_name="__main__") and 0
        except SystemExit as stopped:
            status = stopped.code
    runs.append([status, out.getvalue().splitlines()])
print(json.dumps(runs))
"""


@each_page
def test_the_starter_answers_beside_the_program_in_an_empty_folder(page, tmp_path):
    names = [f"{page.name}.py", f"{page.name}_exercises.py", "solved.py"]
    for name, text in zip(names, (program(page), starter(page, ROOT), starter(page, ROOT, solved=True)), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    all_ = exercises(path_of(page), ROOT)
    commands = [names[1:2], names[2:3], *[[names[1], "hint", str(one.number)] for one in all_]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", READER, json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{path_of(page)}:1: the starter fails:\n{done.stderr[-3000:]}"
    (empty, not_yet), (solved, right), *hints = json.loads(done.stdout)
    for one, said in zip(all_, not_yet, strict=True):
        here, said = f"{path_of(page)}:{one.line}", said.partition("  ")[2]
        mend = f"Let check_{one.number} call the answer before all else, and catch nothing"
        assert said == "not yet", f"{here}: the empty starter is told {said!r}, not 'not yet'. {mend}"
    assert right == [f"{one.number}  right" for one in all_], f"{path_of(page)}:1: the solutions are told {right}"
    assert (empty, solved) == (1, 0)
    assert hints == [[0, [one.hint]] for one in all_]


@each_page
def test_each_exercise_has_tempting_wrong_answers(page):
    """They are tested where they stand, so that the shape comments of solutions are proved."""
    name = path_of(page).removesuffix(".py").replace("/", ".")
    package, _, module = f"tests.{name}".rpartition(".")
    tests = importlib.import_module(f"{package}.test_{module}")
    numbers = {one.number for one in exercises(path_of(page), ROOT)}
    assert tests.WRONG.keys() == numbers and all(tests.WRONG.values()) and callable(tests.test_answers)
