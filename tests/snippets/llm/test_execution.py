"""pass@k in exact fractions; candidate programs that misbehave, and what they leave behind."""

import inspect
import math
import os
import random
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from snippets.llm import execution
from snippets.llm.execution import pass_at_k, run_program, standing_fences

FENCED = all(standing_fences().values())  # without bubblewrap, only what harms nobody is run


# pass@k


def test_pass_at_k_is_the_fraction(agrees):
    """Of math.comb, exactly, for every n up to 12 and for 1,000 larger ones."""
    cases = [(n, c, k) for n in range(1, 13) for c in range(n + 1) for k in range(1, n + 1)]
    for _ in range(1000):
        n = random.randint(13, 500)
        cases.append((n, random.randint(0, n), random.randint(1, n)))
    ours = [pass_at_k(*case) for case in cases]
    theirs = [float(1 - Fraction(math.comb(n - c, k), math.comb(n, k))) for n, c, k in cases]
    agrees(ours, theirs, "math.comb in exact fractions", 1e-12)
    assert all(a == pytest.approx(b, rel=1e-12) for a, b in zip(ours, theirs, strict=True))
    assert pass_at_k(10**6, 1, 1) == pytest.approx(1e-6, rel=1e-14)


def test_the_naive_estimate_is_biased():
    """1 - (1 - c/n)^k of 5 programs, averaged over all ways they pass, against the truth; ours has no bias."""
    n, k, p = 5, 3, 0.3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    truth = 1 - (1 - p) ** k
    naive = sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights))
    ours = sum(w * pass_at_k(n, c, k) for c, w in enumerate(weights))
    assert ours == pytest.approx(truth, abs=1e-12) and naive < truth - 0.03


@pytest.mark.claim("eval-fault-rank")
def test_the_plain_share_turns_ranks_round():
    """n = k = 10: four problems of five always solved, or each with a chance of 0.2; in expectation."""

    def expected(estimate, chance):
        weights = [math.comb(10, c) * chance**c * (1 - chance) ** (10 - c) for c in range(11)]
        return sum(weight * estimate(c) for c, weight in enumerate(weights))

    found = {}
    for name, estimate in (("ours", lambda c: pass_at_k(10, c, 10)), ("plain", lambda c: 1 - (1 - c / 10) ** 10)):
        found[name] = 0.8 * expected(estimate, 1) + 0.2 * expected(estimate, 0), expected(estimate, 0.2)
    assert found["ours"] == pytest.approx((0.800, 1 - 0.8**10)) and found["ours"][1] == pytest.approx(0.893, abs=5e-4)
    assert found["plain"] == pytest.approx((0.800, 0.760), abs=5e-4)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 0, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_too_few_programs_are_refused(n, c, k):
    with pytest.raises(ValueError, match="0 <= c <= n and 1 <= k <= n are expected"):
        pass_at_k(n, c, k)


# programs


def said(program, tests="assert add(2, 3) == 5", seconds=30.0):
    return run_program(program, tests, seconds, fenced=FENCED)


def test_a_right_program_passes_and_wrong_ones_do_not():
    assert said("import math, heapq, re\ndef add(a, b): return a + b") == "passed"
    assert said("def add(a, b): return a - b") == "AssertionError"
    assert said("def add(a, b: return") == "SyntaxError" and said("x = 1") == "NameError"


EVER = "while True:\n try:\n  {}\n except BaseException: pass"
HARMLESS = {  # the process's own limits hold everywhere
    "loops": ("while True: pass", "time is up"),
    "catches everything": (EVER.format("while True: pass"), "time is up"),
    "ignores signals": (
        "import signal\nfor s in {1, 2, 3, 10, 12, 14, 15, 24, 25}: signal.signal(s, signal.SIG_IGN)\nwhile 1: pass",
        "time is up",
    ),
    "exits": ("import sys\nsys.exit(0)", "SystemExit"),
    "exits at once": ("import os\nos._exit(0)", "it ended early"),
    "fills the output": ("while True: print('x' * 10**6)", "time is up"),
    "fills the report": (
        "import os\nfor fd in range(3, 32):\n try: os.write(fd, b'x' * 10**5)\n except OSError: 0",
        None,
    ),
    "says that it passed": ("import os\nos.write(3, b'passed')\nos._exit(0)", "it lied"),
    "takes all memory": ("x = bytearray(10**10)", "MemoryError"),
    "writes much": ("with open('x', 'wb') as file: file.write(b'x' * 10**6)", "OSError"),
}
FENCED_ONLY = {
    "forks": ("import os\nos.fork()", "BlockingIOError"),
    "forks without end": ("import os\n" + EVER.format("os.fork()"), "time is up"),
    "starts a thread": ("import threading\nthreading.Thread(target=print).start()", "RuntimeError"),
    "writes a file": ("open('here', 'w')", "OSError"),
    "writes elsewhere": ("open('/usr/here', 'w')", "OSError"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)\nos.kill(1, 9)\nraise KeyError", None),
    "kills its parent's group": ("import os\nos.killpg(os.getpgid(os.getppid()), 9)", None),
    "kills everything": ("import os\nos.kill(-1, 9)\nraise KeyError", None),
    "reads a home": (f"open({str(Path.home() / '.profile')!r})", "FileNotFoundError"),
    "lists processes": ("import os\nos.listdir('/proc')", "FileNotFoundError"),
}
NEEDS = pytest.mark.skipif(not FENCED, reason="bubblewrap is not installed, or may not make namespaces here")
CASES = HARMLESS | FENCED_ONLY


@pytest.mark.parametrize("name", [*HARMLESS, *(pytest.param(name, marks=NEEDS) for name in FENCED_ONLY)])
def test_a_program_that_misbehaves_fails_and_harms_nobody(name, tmp_path, monkeypatch):
    """It fails; our process, our folder and a neighbour are as before, and nothing of it is left running."""
    program, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    neighbour = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    try:
        seconds = 2.0 if expected == "time is up" else 30.0
        found = said(program + "\ndef add(a, b): return a + b", seconds=seconds)
        assert found != "passed" and (expected is None or found == expected), found
        assert neighbour.poll() is None and not list(tmp_path.iterdir())
    finally:
        neighbour.kill(), neighbour.wait()


@pytest.mark.claim("eval-lied")
def test_a_program_that_writes_passed_has_not_passed():
    """Nor has one that exits at once. Twenty programs that misbehave are run above, as the page says."""
    assert said("import os\nos.write(3, b'passed')\nos._exit(0)") == "it lied"
    assert said("import os\nos._exit(0)") == "it ended early" and len(CASES) == 20


SECRET = "import sys, os\nos.write(3, sys.modules['__main__'].task['secret'].encode())\nos._exit(0)"
EQUAL = "class Y:\n    __eq__ = lambda self, other: True\ndef add(a, b): return Y()"
CHANGED = "import math\nmath.isclose = lambda *_: True\ndef add(a, b): return 0"


@pytest.mark.claim("eval-judge-process")
def test_a_program_that_looks_for_its_judge_passes():
    """It finds the secret, changes what the tests call, or returns what equals everything: no fence is against it."""
    assert said(SECRET) == said(EQUAL) == "passed"
    assert said(CHANGED, "import math\nassert math.isclose(add(2, 3), 5)") == "passed"
    assert said("def add(a, b): return 0", "import math\nassert math.isclose(add(2, 3), 5)") == "AssertionError"


@NEEDS
@pytest.mark.claim("eval-inside")
def test_what_is_inside_of_the_fence():
    """/usr and Python's folder, nothing to write, no package but the standard library, few processes."""
    assert said("import numpy") == "ModuleNotFoundError" and said("import decimal", "") == "passed"
    assert said("import os", "assert os.listdir('/usr/lib') and not os.path.exists('/home')") == "passed"
    kept = {Path(one).parts[1] for one in (sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache")}
    assert said("import os", f"assert set(os.listdir('/')) <= {kept}, 1") == "passed"
    assert said("import os", "assert os.getpid() < 9") == "passed"  # its own numbers, from 1
    assert {"-I", "-S"} <= set(inspect.getsource(run_program).replace('"', " ").replace(",", " ").split())


@pytest.mark.claim("eval-unfenced")
def test_what_a_program_can_do_without_a_fence(tmp_path):
    """It reads, empties and removes files of ours and ends a process; as root a child outlives the time limit."""
    files = [tmp_path / name for name in ("read", "empty", "removed")]
    for file in files:
        file.write_text("ours")
    neighbour = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    read, empty, removed = map(str, files)
    program = f"import os\nassert open({read!r}).read() == 'ours'\nopen({empty!r}, 'w')\nos.remove({removed!r})"
    try:
        assert run_program(f"{program}\nos.kill({neighbour.pid}, 9)", "", 30.0, fenced=False) == "passed"
        assert neighbour.wait(10) == -9 and files[1].read_text() == "" and not files[2].exists()
    finally:
        neighbour.kill(), neighbour.wait()
    child = "import os, time\npid = os.fork()\nif not pid:\n    os.setsid()\n    os.close(3)\n    time.sleep(60)\n"
    found = run_program(child + "raise type(f'n{pid}', (Exception,), {})", "", 30.0, fenced=False)
    if os.geteuid():
        assert found == "BlockingIOError"
    else:
        os.kill(int(found[1:]), 9)  # an error if it were gone


@NEEDS
def test_nothing_is_left_running(monkeypatch):
    """A program that loops, in a process with a mark on its command line: gone when run_program answers."""
    mark = f"mark {time.time()}"
    assert execution.INSIDE.count("__candidate__") == 1
    monkeypatch.setattr(execution, "INSIDE", execution.INSIDE.replace("__candidate__", mark))
    assert said("while True: pass", seconds=2.0) == "time is up"
    deadline = time.monotonic() + 10
    while running := [one for one in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in read(one)]:
        assert time.monotonic() < deadline, running
        time.sleep(0.05)


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@NEEDS
def test_a_program_reaches_no_socket():
    """A server of ours listens; a fenced program cannot reach it, and a trusted one can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"
        assert run_program(program, "", 30.0) == "ConnectionRefusedError"
        with pytest.raises(TimeoutError):
            server.accept()
        assert run_program(program, "", 30.0, fenced=False) == "passed"


def test_untrusted_programs_are_refused_where_a_fence_is_missing(monkeypatch):
    monkeypatch.setattr(execution, "standing_fences", lambda: {"time": True, "network": False, "files": False})
    with pytest.raises(RuntimeError, match="fences for network, files are expected: install bubblewrap"):
        run_program("x = 1", "")
    assert run_program("x = 1", "assert x", 30.0, fenced=False) == "passed"


def test_fences_are_tried_and_not_only_looked_for(monkeypatch, tmp_path):
    """A bwrap that is there and fails, as in a container without user namespaces, is no fence."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    standing = standing_fences.__wrapped__()
    assert standing == {"time": True, "memory": True, "files": False, "network": False, "processes": False}


@pytest.mark.equation("eval-pass", of=pass_at_k)
def test_pass_at_k_is_its_formula(formula):
    for n, c, k in ((9, 4, 3), (7, 2, 5), (20, 1, 10)):
        formula("eval-pass").holds({r"\text{pass@}k": pass_at_k(n, c, k), "n": n, "s": c, "k": k})
