"""Score programs by running them: pass@k (Chen et al. 2021, arXiv 2107.03374), and a fenced process."""

# --8<-- [start:imports]
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from math import expm1, log1p
from pathlib import Path

# --8<-- [end:imports]


# --8<-- [start:pass]
def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k programs passes, drawn without repetition from n, of which c pass.

    ValueError if k > n: fewer programs than k say nothing about k.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"0 <= c <= n and 1 <= k <= n are expected, given n {n}, c {c} and k {k}")
    if n - c < k:
        return 1.0
    return -expm1(sum(log1p(-k / i) for i in range(n - c + 1, n + 1)))


# --8<-- [end:pass]


# --8<-- [start:inside]
INSIDE = """
import json, os, resource, sys
task = json.load(sys.stdin)
report = os.dup(1)
os.dup2(2, 1)  # what the program prints goes where its errors go: nowhere
if task["nobody"]:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for name, limit in task["limits"].items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
space, said = {"__name__": "__candidate__"}, task["secret"]
try:
    exec(compile(task["program"], "program", "exec"), space)
    exec(compile(task["tests"], "tests", "exec"), space)
except BaseException as error:
    said = type(error).__name__
os.write(report, said.encode()[:60])
os._exit(0)
"""
# --8<-- [end:inside]


# --8<-- [start:fences]
def bubble() -> list[str]:
    """A command that shuts in the one behind it: no network, no other process, nothing to write to."""
    home = sys.base_prefix
    command = [shutil.which("bwrap") or "bwrap", "--unshare-ipc", "--unshare-net", "--unshare-pid"]
    command += ["--unshare-uts", "--new-session", "--die-with-parent", "--clearenv"]
    for parent in reversed(Path(home).parents[:-1]):
        command += ["--perms", "0755", "--dir", str(parent)]  # else only root may pass
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind", home, home]
    for folder in ("/lib", "/lib64", "/etc/ld.so.cache"):
        command += ["--ro-bind-try", folder, folder]
    return command + ["--remount-ro", "/", "--chdir", "/"]


@cache
def standing_fences() -> dict[str, bool]:
    """Which fences stand on this machine. Without bubblewrap the last three do not."""
    closed = False
    if shutil.which("bwrap"):
        closed = subprocess.run(bubble() + ["/usr/bin/env", "true"], capture_output=True).returncode == 0
    return {"time": True, "memory": True, "files": closed, "network": closed, "processes": closed}


# --8<-- [end:fences]


# --8<-- [start:run]
def run_program(program: str, tests: str, seconds: float = 3.0, fenced: bool = True) -> str:
    """Run a program and then its tests in a process of its own: `passed`, or what went wrong.

    RuntimeError where a fence is missing, unless fenced=False says that the program is trusted.
    """
    missing = [name for name, stands in standing_fences().items() if not stands]
    if fenced and missing:
        raise RuntimeError(f"fences for {', '.join(missing)} are expected: install bubblewrap (bwrap)")
    limits = {"CPU": int(seconds) + 1, "AS": 1 << 29, "FSIZE": 0, "NOFILE": 32, "NPROC": 0, "CORE": 0}
    task = {"program": program, "tests": tests, "limits": limits, "secret": secrets.token_hex(16)}
    task["nobody"] = fenced and os.geteuid() == 0  # the limit on processes does not bind root
    python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", INSIDE]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            bubble() + python if fenced else python,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,  # a group of its own, so that all of it can be killed, and nothing else
        )
        try:
            said = conversation(process, json.dumps(task).encode(), time.monotonic() + seconds)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            process.stdin.close(), process.stdout.close()
    if said == "passed":
        return "it lied"
    return "passed" if said == task["secret"] else said


def conversation(process: subprocess.Popen, task: bytes, end: float) -> str:
    """Hand over the task, and read at most 64 bytes of answer, until a time is up."""
    answer, sink, source = b"", process.stdin, process.stdout
    try:
        sink.write(task)
        sink.close()
    except BrokenPipeError:
        return "it did not start"
    while len(answer) < 64:
        if not select.select([source], [], [], max(0, end - time.monotonic()))[0]:
            return "time is up"
        piece = os.read(source.fileno(), 64)
        if not piece:
            return answer.decode(errors="replace") or "it ended early"
        answer += piece
    return "it said too much"


# --8<-- [end:run]
