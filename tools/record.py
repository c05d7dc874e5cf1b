"""Record what a page's program prints, and the pictures that it saves: `make record POST=Diffusion`.

The program is run as its reader would run it: alone, in an empty folder, at full length, in one process of one thread.
Without POST, all pages are recorded whose record is not that of their program as it stands.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

from theme.page import records
from theme.page.pages import ROOT, Page, key_line, posts, program
from theme.page.pictures import BUDGET
from theme.page.source import SourceError
from tools.reached import bare, digest

PICTURES = {".png", ".svg"}
COMPILER = shutil.which("g++") is not None  # without it, torch.compile does not work and programs do without
# Runs the program named first, and writes the names of its functions that were entered to the file named second.
RUNNER = """
import json, runpy, sys
from cProfile import Profile
name, entered = sys.argv[1:]
sys.argv[1:], sys.path[0] = [], ""
profile = Profile(subcalls=False, builtins=False)
try:
    profile.runcall(runpy.run_path, name, run_name="__main__")
finally:
    codes = [entry.code for entry in profile.getstats() if not isinstance(entry.code, str)]
    names = {c.co_qualname for c in codes if c.co_filename == name and c.co_flags & 1 and c.co_name[0] != "<"}
    with open(entered, "w") as file:
        json.dump(sorted(names), file)
"""


@dataclass(frozen=True)
class Run:
    """What a program did: its exit status, both outputs, the functions entered, and CPU seconds."""

    status: int
    printed: str
    errors: str
    functions: list[str]
    seconds: float


def run(code: str, name: str, folder: Path, limit: float | None = None, threads: int | None = 1) -> Run:
    """Run a program, named x.py, in a folder without this repository; subprocess.TimeoutExpired after the limit."""
    (folder / name).write_text(code, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with tempfile.TemporaryDirectory() as elsewhere:
        entered = Path(elsewhere, "entered.json")
        command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", RUNNER, name, entered]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        functions = json.loads(entered.read_text()) if entered.is_file() else []
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(done.returncode, done.stdout, done.stderr, functions, seconds)


def fingerprint(code: str) -> str:
    """Of a program; comments, docstrings and layout do not count."""
    return hashlib.sha256("".join("".join(bare(code)).split()).encode()).hexdigest()[:12]


def seal(record: dict) -> str:
    """A fingerprint of all else that a record holds."""
    rest = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]


def stale(page: Page, root: Path = ROOT) -> list[str]:
    """Why a page's record is not that of its program, as "file:line: what is wrong. How to mend it"."""
    here, mend = records.place(page, root), f"Run: make record POST={page.key}"
    if not records.NOTATION.search(page.text):
        return [f"{here}: the page does not show what its program prints. Add a line: {{{{ program }}}}"]
    record = records.load(root, page.key)
    if record is None:
        return [f"{here}: the page's program has no recorded run. {mend}"]
    try:
        now = fingerprint(program(page, root))
    except (SourceError, SyntaxError, TokenError, RuntimeError):
        return []  # another check says so
    if record["code"] != now:
        return [f"{here}: the program changed after its run was recorded. {mend}"]
    if record.get("seal") != seal(record):
        return [f"docs/results/{page.key}.program.json:1: the record was edited by hand. {mend}"]
    problems = []
    for name, known in record["pictures"].items():
        path = records.picture(root, page.key, name)
        if not path.is_file() or digest(path) != known:
            place = path.relative_to(root).as_posix()
            problems.append(f"{place}:1: this file is not the one that the program of {page.key} saved. {mend}")
        if not records.alternative_text(page, record, name):
            write = f'Write program: {{alt: {{{name}: "what it shows"}}}}'
            problems.append(f"{key_line(page, root, 'program')}: the picture {name} has no alternative text. {write}")
    return problems


def record(page: Page, root: Path = ROOT) -> None:
    """Run a page's program and write its record; SystemExit, with docs/ as it was, where the program fails."""
    code = program(page, root)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(f"running the program of {page.key} at full length, about two minutes", flush=True)
        done = run(code, f"{page.path.stem}.py", folder)
        if done.status:
            sys.exit(f"{page.path.relative_to(root)}:1: the program fails:\n{done.errors[-3000:]}")
        paths = sorted(folder.rglob("*"), key=lambda path: path.stat().st_mtime_ns)  # as they were written
        files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
        del files[f"{page.path.stem}.py"]
        pictures = {name: path for name, path in files.items() if path.suffix in PICTURES}
        for name, path in pictures.items():
            if (size := path.stat().st_size) > BUDGET:
                sys.exit(f"{name} weighs {size // 1024} KiB, more than {BUDGET // 1024}. Let it save fewer pixels")
        kept = records.picture(root, page.key, "")
        shutil.rmtree(kept, ignore_errors=True)
        for name, path in pictures.items():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept / name)
        found = {
            "printed": done.printed.splitlines(),
            "pictures": {name: digest(path) for name, path in pictures.items()},
            "files": {name: path.stat().st_size for name, path in files.items()},
            "functions": done.functions,
            "seconds": round(done.seconds, 1),
            "date": datetime.date.today().isoformat(),
            "versions": {"python": platform.python_version(), "torch": importlib.metadata.version("torch")},
            "compiler": COMPILER,
            "code": fingerprint(code),
        }
    target = root / f"docs/results/{page.key}.program.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found | {"seal": seal(found)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {target.relative_to(root)}" + "".join(f", {(kept / n).relative_to(root)}" for n in pictures))


def main() -> None:
    """`python -m tools.record [POST]`."""
    parser = argparse.ArgumentParser(prog="make record", description="Record a run of a page's program.")
    parser.add_argument("post", nargs="?", help="Diffusion, LLM/ROPE, …; without it, all whose record is stale")
    key = parser.parse_args().post
    pages = posts()
    if key and key not in {page.key for page in pages}:
        parser.error(f"POST is one of {', '.join(sorted(page.key for page in pages))}; given {key}")
    for page in pages:
        if key == page.key or (not key and stale(page)):
            record(page)


if __name__ == "__main__":
    main()
