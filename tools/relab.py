"""See whether changed code changes any number of a lab, without running the lab.

The notebook runs twice on a small budget: as it was, with the code as it was, when the results were written (the newest
commit that has their fingerprints), and as it is. The budget is the notebook's own metadata:

    "quick": {"TRAIN_STEPS": 20, "snippets/ddpm.py:SAMPLES": 8}

Where each value agrees to 1e-6, and each figure and the weights agree too, the results get the new fingerprints.
Timings do not count: clocks are replaced by a counter. Weights of other labs are those of today in both runs.

A constant may first matter late in a long run. So where code has other constants than before and is otherwise the same,
the lab has to run.
"""

import ast
import datetime
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from theme.page.pages import constants, with_constants
from tools.lab import ROOT
from tools.labs import leaves, recorded, same, write
from tools.reached import cells, definitions, fingerprints, inputs, stale

CLOCKS = """import itertools as _itertools, time as _time
_time.perf_counter = _time.process_time = lambda _count=_itertools.count(1): next(_count) * 1e-3
"""
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")


class CannotTell(Exception):
    """Why a lab has to run."""


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def tree_then(key: str, code: dict, folder: Path) -> Path:
    """The newest committed tree in which the lab reaches code of these fingerprints."""
    notebook = f"docs/labs/{key}.ipynb"
    for commit in git("log", "--format=%H", "--", "snippets", notebook).decode().split():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with tarfile.open(fileobj=BytesIO(git("archive", commit, "snippets", "tools", notebook))) as archive:
                archive.extractall(folder, filter="data")
            if fingerprints(key, folder) == code:
                return folder
        except (tarfile.TarError, OSError, ValueError, SyntaxError):
            continue  # the lab was not there yet, or could not run
    raise CannotTell("no commit has the code that its results were made with")


def tree_now(key: str, folder: Path) -> Path:
    """A copy of the working tree's code."""
    for name in ("snippets", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    notebook = folder / f"docs/labs/{key}.ipynb"
    notebook.parent.mkdir(parents=True)
    shutil.copy(ROOT / f"docs/labs/{key}.ipynb", notebook)
    return folder


def shorten(key: str, tree: Path, quick: dict) -> dict[str, object]:
    """Write the lab as a program, lab.py, with the constants of its small budget; what those were before."""
    (tree / "lab.py").write_text("\n\n".join(cells(key, tree)), encoding="utf-8")
    by_file, before = {"lab.py": {}}, {}
    for name, value in quick.items():
        path, _, constant = name.rpartition(":")
        by_file.setdefault(path or "lab.py", {})[constant] = value
    for path, replaced in by_file.items():
        code = (tree / path).read_text(encoding="utf-8")
        known = {name: literal(value) for name, value in constants(code).items() if name in replaced}
        for name, value in replaced.items():
            if not value or (isinstance(value, int | float) and value < 1):
                raise CannotTell(f"{path}: {name}: {value} is no small budget, but none")
            if isinstance(known.get(name), set | tuple):  # which JSON does not have
                replaced[name] = type(known[name])(value)
        try:
            short = with_constants(code, replaced)
        except ValueError as error:
            raise CannotTell(f"{path}: {error}") from error
        before |= {f"{path}: {name}": known[name] for name in replaced}
        (tree / path).write_text(CLOCKS + short if path == "lab.py" else short, encoding="utf-8")
    return before


def literal(value: ast.expr):
    """A constant that the small budget replaces; it depends on nothing else, so that its own change is seen."""
    try:
        return ast.literal_eval(value)
    except ValueError as error:
        raise CannotTell(f"quick: replaces {ast.unparse(value)}, which is no plain constant") from error


class Blank(ast.NodeTransformer):
    """Takes the constants out of code, docstrings and texts of errors aside."""

    def __init__(self):
        self.found: list[str] = []

    def visit_Constant(self, node):
        self.found.append(ast.unparse(node))
        return ast.Constant(None)

    def visit_Raise(self, node):
        return ast.Pass()

    def visit_Expr(self, node):
        return ast.Pass() if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def blanked(code: str) -> tuple[str, list[str]]:
    """The syntax tree without constants, and the constants."""
    blank = Blank()
    return ast.dump(blank.visit(ast.parse(code))), blank.found


def other_constants(key: str, then: Path, now: Path, old: dict, new: dict) -> list[str]:
    """Where code differs from what it was in nothing but constants."""
    found = []
    for path in sorted(old.keys() & new.keys()):
        names = [name for name in old[path] if name in new[path] and old[path][name] != new[path][name]]
        sources = [sources_of(key, path, tree) for tree in (then, now)] if names else []
        for name in names:
            (tree, was), (same_tree, now_has) = (blanked(source[name]) for source in sources)
            if tree == same_tree:
                pairs = [f"{b} where it had {a}" for a, b in zip(was, now_has, strict=True) if a != b]
                found += [f"{path}: {name} has {pair}" for pair in pairs]
    return found


def sources_of(key: str, path: str, tree: Path) -> dict[str, str]:
    """The code of each cell of a notebook, or of each definition of a module, by the name it has in fingerprints."""
    if path.endswith(".ipynb"):
        return {f"cell {number}": cell for number, cell in enumerate(cells(key, tree), 1)}
    source = (tree / path).read_text(encoding="utf-8")
    return {name: ast.unparse(node) for name, (_, _, node) in definitions(source).items()}


def quick_run(key: str, tree: Path, code: dict, quick: dict) -> Path:
    """The folder with what a lab wrote on its small budget; kept in .lab-cache, so that it need not run again."""
    tools = (tree / "tools/lab.py").read_text(encoding="utf-8")
    versions = [sys.version, *(importlib.metadata.version(name) for name in ("torch", "numpy", "matplotlib"))]
    everything = json.dumps([code, quick, tools, versions, inputs(key)], sort_keys=True)
    kept = ROOT / ".lab-cache" / key / f"quick-{hashlib.sha256(everything.encode()).hexdigest()[:16]}"
    if not kept.is_dir():
        (tree / "docs/weights").symlink_to(ROOT / "docs/weights")
        made = tree / "lab-output" / key
        settings = {"LAB_OPTIONS": json.dumps({"folder": str(made), "keep": False}), "PYTHONPATH": str(tree)}
        settings |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"}
        settings |= {"TORCHDYNAMO_DISABLE": "1"}  # compiled code gives the same numbers, and takes half a minute
        command, start = [sys.executable, "-W", "ignore", "lab.py"], time.perf_counter()
        done = subprocess.run(command, cwd=tree, env=os.environ | settings, capture_output=True, text=True)
        if done.returncode:
            raise CannotTell("on its small budget it stops:\n" + "\n".join(done.stderr.strip().split("\n")[-8:]))
        print(f"  {key}: ran on its small budget in {time.perf_counter() - start:.0f} s", flush=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copytree(made, part)
        part.rename(kept)
    return kept


def differences(old: dict, new: dict) -> list[str]:
    """Values of two runs that differ, as "path: old, new". What is a timing in either of them is left out."""
    timings = leaves(old.get("timings", {})).keys() | leaves(new.get("timings", {})).keys()
    old, new = (
        {path: value for path, value in leaves(run["values"]).items() if path not in timings} for run in (old, new)
    )
    return [
        f"{path}: {old.get(path, 'not recorded')} as it was, {new.get(path, 'not recorded')} now"
        for path in sorted(old.keys() | new.keys())
        if path not in old or path not in new or not same(old[path], new[path])
    ]


def same_file(one: Path, other: Path) -> bool:
    """Whether two figures look the same, or two files of weights hold the same numbers to 1e-6."""
    if one.read_bytes() == other.read_bytes():
        return True
    if one.suffix == ".svg":
        texts = [path.read_text(encoding="utf-8") for path in (one, other)]
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in texts]
        return NUMBER.sub("", texts[0]) == NUMBER.sub("", texts[1]) and all(
            abs(a - b) < 0.01 for a, b in zip(*numbers, strict=True)
        )
    if one.suffix == ".png":
        from PIL import Image, ImageChops

        images = [Image.open(path).convert("RGBA") for path in (one, other)]
        if images[0].size != images[1].size:
            return False
        return all(high <= 2 for _, high in ImageChops.difference(*images).getextrema())
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and (a[name] - b[name]).abs().max() <= 1e-6 * a[name].abs().max() for name in a
    )


def files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*") if path.name != "results.json"}


def check(key: str, results: dict, runs: ThreadPoolExecutor, folder: Path) -> str:
    """Run a lab twice on its small budget, give its results the new fingerprints, and say so; or CannotTell."""
    if files_changed := [line for line in stale(key) if " changed after " not in line]:
        raise CannotTell("\n".join(files_changed))
    notebook = json.loads((ROOT / f"docs/labs/{key}.ipynb").read_text(encoding="utf-8"))
    quick = notebook["metadata"].get("quick")
    if quick is None:
        raise CannotTell("its notebook's metadata name no small budget, quick")
    code = fingerprints(key)
    then, now = tree_then(key, results["code"], folder / "then"), tree_now(key, folder / "now")
    before, after = shorten(key, then, quick), shorten(key, now, quick)
    if changed := [f"{name} was {before[name]} and is {after[name]}" for name in before if before[name] != after[name]]:
        raise CannotTell("\n".join(changed))
    both = [runs.submit(quick_run, key, tree, *one, quick) for tree, one in ((then, [results["code"]]), (now, [code]))]
    old, new = (run.result() for run in both)
    measured = [json.loads((one / "results.json").read_text()) for one in (old, new)]
    found, (drawn, draws) = differences(*measured), (files(old), files(new))
    for name in sorted(drawn.keys() | draws.keys()):
        if name not in drawn or name not in draws or not same_file(drawn[name], draws[name]):
            found.append(f"{name}: not the same file")
    if found := other_constants(key, then, now, results["code"], code) + found:
        raise CannotTell("\n".join(found[:12] + [f"and {len(found) - 12} more"] * (len(found) > 12)))
    results = {"values": results["values"], "timings": {}} | results
    transfer(results["values"], results["timings"], measured[1].get("timings", {}))
    write(key, results | {"code": code, "rechecked": datetime.date.today().isoformat()})
    forget(key, keep=new)
    count = len(leaves(measured[1]["values"]))
    return f"{count} values and {len(draws)} files unchanged. docs/results/{key}.json has the new fingerprints"


def transfer(values: dict, timings: dict, like: dict) -> None:
    """Move to timings what is a timing now, and was a value."""
    for name, below in like.items():
        if name in values and isinstance(below, dict):
            transfer(values[name], timings.setdefault(name, {}), below)
            if not values[name]:
                del values[name]
            if not timings[name]:
                del timings[name]
        elif name in values:
            timings[name] = values.pop(name)


def forget(key: str, keep: Path) -> None:
    """Remove kept runs of older code."""
    for folder in keep.parent.glob("quick-*"):
        if folder != keep:
            shutil.rmtree(folder)


def relab(keys: list[str]) -> int:
    """Check the labs whose code has changed; how many of them have to run."""
    known = {key: recorded(key) for key in keys}
    changed = {key: results for key, results in known.items() if results and stale(key)}
    for key in known.keys() - changed.keys():
        print(f"{key}: " + ("nothing has changed" if known[key] else f"it has no results. Run: make lab POST={key}"))
    have_to_run = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(2) as runs,  # side by side, one thread each
        ThreadPoolExecutor(max(1, len(changed))) as checks,
    ):
        todo = {
            key: checks.submit(check, key, results, runs, Path(folder) / key.replace("/", "-"))
            for key, results in changed.items()
        }
        for key, done in todo.items():
            try:
                print(f"{key}: {done.result()}")
            except CannotTell as why:
                have_to_run += 1
                print(f"{key}: the lab has to run (make lab POST={key}):\n  " + str(why).replace("\n", "\n  "))
    return have_to_run
