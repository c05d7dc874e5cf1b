"""What breaks it: with each fault that a page shows, the test that it names fails."""

import json
import os
import subprocess
import sys

import pytest

from theme.page.breakages import breakages
from theme.page.pages import ROOT, posts

FAULTS = {page.key: found for page in posts() if (found := breakages(page, ROOT)[0])}  # test_sources.py has the others


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, request) -> dict[str, str]:
    """What is wrong with each fault of the pages that are tested now, by its place."""
    chosen = {item.callspec.params["key"] for item in request.session.items if item.path == request.path}
    faults = [fault for key in FAULTS if key in chosen for fault in FAULTS[key]]
    folder = tmp_path_factory.mktemp("faults")
    wanted = [{"module": f.module, "code": f.code(ROOT), "test": f"{f.test}::{f.name}"} for f in faults]
    (folder / "faults.json").write_text(json.dumps(wanted), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "tests.pages.faulty", folder / "faults.json", folder / "outcomes.json"]
    done = subprocess.run(command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    return {fault.place: one for fault, one in zip(faults, said, strict=True)}


@pytest.mark.parametrize("key", FAULTS)
def test_each_fault_is_caught_by_the_test_that_it_names(key, outcomes):
    problems = [f"{fault.place}: {outcomes[fault.place]}" for fault in FAULTS[key] if outcomes[fault.place]]
    assert not problems, "\n" + "\n".join(problems)
