"""Run a lab's notebook and publish what it measured, or compare that with what was recorded.

python -m tools.labs run POST       `make lab`: execute the notebook, write docs/
python -m tools.labs all            `make labs`: every lab
python -m tools.labs relab [POST]   `make relab`: see whether changed code changes any number (tools/relab.py)
"""

import argparse
import datetime
import difflib
import json
import math
import os
import platform
import shutil
import sys
from pathlib import Path

from tools.lab import ROOT
from tools.reached import PYTHON_DATA, digest, fingerprints, inputs, labs


def execute(key: str, options: dict):
    """The notebook of a lab, executed in a fresh kernel; what it writes goes to options["folder"]."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    class Client(NotebookClient):
        """Shows on the terminal what cells write to stderr, such as bars of progress, and stores none of it."""

        def output(self, outs, msg, display_id, cell_index):
            content = msg["content"]
            if msg["msg_type"] != "stream" or content["name"] != "stderr":
                return super().output(outs, msg, display_id, cell_index)
            if "TqdmWarning" not in content["text"]:  # tqdm would like to draw widgets
                print(content["text"], end="", file=sys.stderr, flush=True)

    notebook = nbformat.read(ROOT / f"docs/labs/{key}.ipynb", as_version=4)
    os.environ |= {"LAB_OPTIONS": json.dumps(options), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # a bar in a file is a thousand lines
    client = Client(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.on_cell_start = lambda cell, cell_index: print(f"cell {cell_index + 1} of {len(notebook.cells)}", flush=True)
    try:
        client.execute()
    except CellExecutionError as error:
        shutil.rmtree(options["folder"])
        lines = str(error).strip().splitlines()
        sys.exit(f"docs/labs/{key}.ipynb stopped: {lines[-1]}\n" + "\n".join(lines[:-1][-30:]))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which change at every run
    return notebook


def recorded(key: str) -> dict | None:
    """The results of a lab's last run, if it ran."""
    path = ROOT / f"docs/results/{key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run(key: str, options: dict) -> None:
    """Execute a lab, and publish it; with the reader's own data or to compare, leave docs/ as it is."""
    import nbformat

    own_data, compared, last = bool(options["images"] or options["text"]), options.pop("compare"), recorded(key)
    if last:
        minutes = f"{last['seconds'] / 60:.0f} min" if last["seconds"] >= 90 else f"{last['seconds']:.0f} s"
        print(f"The lab of {key} took {minutes} on {last['date']} ({last['device']}).", flush=True)
    output = ROOT / "lab-output" / key / f"{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}-{os.getpid()}"
    output.mkdir(parents=True)
    code = fingerprints(key)
    notebook = execute(key, options | {"folder": str(output), "keep": not compared})
    if compared:
        if last is None:
            sys.exit(f"docs/results/{key}.json does not exist: there is nothing to compare with")
        print("\n".join(compare(last, json.loads((output / "results.json").read_text()))))
        shutil.rmtree(output)
    elif own_data:
        nbformat.write(notebook, output / "lab.ipynb")
        print(f"your data: figures, values and the executed notebook are in {output.relative_to(ROOT)}/")
    elif fingerprints(key) != code:
        shutil.rmtree(output)
        sys.exit(
            f"the code that the lab of {key} reaches was edited while it ran; docs/ is left as it was. Run it again"
        )
    else:
        nbformat.write(notebook, ROOT / f"docs/labs/{key}.ipynb")
        publish(key, output, code)
        print(f"written: docs/labs/{key}.ipynb, docs/figures/{key}/, docs/results/{key}.json")


def publish(key: str, source: Path, code: dict[str, dict[str, str]]) -> None:
    """Move what a lab wrote in a folder to docs/; code holds the fingerprints of what it ran."""
    files = []
    figures = ROOT / "docs/figures" / key
    for old in figures.glob("*.*"):  # those of the page's program, in a folder of their own, stay
        old.unlink()
    for old in sorted((source / "figures").iterdir()):
        figures.mkdir(parents=True, exist_ok=True)
        files.append(Path(shutil.copy(old, figures / old.name)))
    if (source / "weights/weights.safetensors").is_file():
        weights = ROOT / "docs/weights" / f"{key}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        files.append(Path(shutil.copy(source / "weights/weights.safetensors", weights)))
    results = json.loads((source / "results.json").read_text())
    if PYTHON_DATA & code.keys():
        results["versions"]["python"] = platform.python_version()
    results |= {"code": code, "inputs": inputs(key)}
    results["files"] = {path.relative_to(ROOT).as_posix(): digest(path) for path in files}
    write(key, results)
    shutil.rmtree(source)


def write(key: str, results: dict) -> None:
    """Store the results of a lab."""
    target = ROOT / "docs/results" / f"{key}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")


def leaves(value, path: str = "") -> dict:
    """Each recorded value by its dotted path; what several seeds gave is one value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or (isinstance(value, dict) and value.keys() == {"mean", "sd", "seeds"}):
        return {path: value}
    start = f"{path}." if path else ""
    return {one: leaf for name, below in items for one, leaf in leaves(below, f"{start}{name}").items()}


def same(a, b) -> bool:
    """Whether two recorded values agree to 1e-6."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
    if isinstance(a, list | dict) and type(a) is type(b):
        a, b = (one if isinstance(one, dict) else dict(enumerate(one)) for one in (a, b))
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return a == b


def shown(value) -> str:
    """A value for the eye."""
    if isinstance(value, dict):
        return f"{value['mean']:.4g} ± {value['sd']:.2g}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]


def compare(last: dict, now: dict) -> list[str]:
    """Each recorded value beside the one measured now, one a line.

    A mean over seeds is in the recorded spread if it lies within two standard deviations of the recorded mean.
    """
    lines = [f"{'':44}{'recorded ' + last['date']:>24}{'here':>24}"]
    old, new = leaves(last["values"]), leaves(now["values"])
    for path in sorted(old.keys() | new.keys()):
        if path not in old or path not in new:
            verdict = "not recorded" if path not in old else "not measured"
        elif same(old[path], new[path]):
            verdict = "same"
        elif isinstance(old[path], dict) and isinstance(new[path], dict):
            inside = abs(new[path]["mean"] - old[path]["mean"]) <= 2 * old[path]["sd"]
            verdict = "in the spread" if inside else "OUT of the spread"
        elif isinstance(old[path], float) and isinstance(new[path], int | float) and old[path]:
            verdict = f"{new[path] / old[path] - 1:+.1%}"
        else:
            verdict = "differs"
        pair = [shown(values[path]) if path in values else "" for values in (old, new)]
        lines.append(f"{path:44}{pair[0]:>24}{pair[1]:>24}  {verdict}")
    old, new = leaves(last.get("timings", {})), leaves(now.get("timings", {}))
    lines += [f"{'timings.' + path:44}{shown(old[path]):>24}{shown(new[path]):>24}" for path in old if path in new]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="make lab", description="Run a post's lab.")
    parser.add_argument("what", choices=["run", "all", "relab"])
    parser.add_argument("post", nargs="?", help="Diffusion, LLM/ROPE, …")
    parser.add_argument("--images", help="a folder of your own pictures")
    parser.add_argument("--text", help="a text file of your own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--compare", action="store_true", help="print recorded and measured values side by side")
    options = vars(parser.parse_args())
    what, post, known = options.pop("what"), options.pop("post"), labs()
    if post not in known and (post or what == "run"):
        near = difflib.get_close_matches(str(post), known, n=1)
        parser.error(f"POST is one of {', '.join(known)}; given {post}" + (f" (did you mean {near[0]}?)" * len(near)))
    if what == "relab":
        from tools.relab import relab

        sys.exit(relab([post] if post else known))
    options |= {name: str(Path(options[name]).resolve()) for name in ("images", "text") if options[name]}
    for key in [post] if what == "run" else known:
        run(key, dict(options))


if __name__ == "__main__":
    main()
