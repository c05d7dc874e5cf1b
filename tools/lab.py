"""Run a lab, keep what it measured, and tell when the code has changed since.

A lab is a notebook, docs/labs/<post>.ipynb. `make lab POST=<post>` runs it from top to bottom in a fresh kernel.
In its first cell it makes a `Lab`, through which it draws figures and records values:

    lab = Lab("Diffusion")
    lab.figure("loss.svg", draw)            # docs/figures/Diffusion/loss.svg and loss.dark.svg
    lab.record("frechet.ddpm", 12.3)        # docs/results/Diffusion.json
    lab.record("frechet.ddim", seeds=[12.3, 11.9, 12.8])         # mean, deviation and all three
    lab.timing("train.seconds", 312.4)      # apart from the values, because no run repeats it
    model = lab.keep(train, network, images, 5000, seed=1)      # what it returned, if it ran before
    lab.weights(model)                      # docs/weights/Diffusion.safetensors
    lab.done()

Everything is first written to a folder of the run in lab-output/<post>/ and moves to docs/ once the last cell has run.
With the reader's own data (--images, --text) it stays there, and docs/ is left as it was.
"""

import argparse
import ast
import datetime
import difflib
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import statistics
import sys
import time
import tokenize
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ["torch", "numpy", "scikit-learn", "diffusers", "transformers", "peft"]
INK = {"light": "#24292f", "dark": "#d7dce2"}
COLORS = {  # Okabe and Ito's, which colour-blind readers tell apart; lighter ones on a dark page
    "light": ["#0072b2", "#d55e00", "#009e73", "#a3527f", "#8a6100", "#4d4d4d"],
    "dark": ["#56b4e9", "#ff9454", "#2fc79a", "#e69fc8", "#f0c040", "#b3b3b3"],
}


class Lab:
    """What a notebook sees: its options, and where figures, values and weights go."""

    def __init__(self, key: str):
        options = json.loads(os.environ.get("LAB_OPTIONS", "{}"))
        self.key, self.started = key, time.time()
        self.images, self.text = options.get("images"), options.get("text")  # the reader's own data, or None
        self.device = options.get("device", "cpu")
        self.folder = Path(options.get("folder", ROOT / "lab-output" / key / "by-hand"))
        self.cache = ROOT / ".lab-cache" / key if options.get("keep", True) else None
        self.values: dict = {}
        self.timings: dict = {}
        self.seconds = 0.0  # that the last kept function took
        self.spared = 0.0  # seconds, by functions that were kept from an earlier run
        self.keeping = False
        for folder in ("figures", "weights"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)

    def record(self, path: str, value=None, *, seeds: list | None = None) -> None:
        """Keep a measured value under a dotted path, such as frechet.ddpm, and print it.

        seeds=[…] holds a number for each of three seeds or more; kept are {"mean", "sd" (n - 1), "seeds"}. Where it
        holds a dict of numbers for each seed, this is done for each name.
        """
        if (value is None) == (seeds is None):
            raise ValueError(f"lab.record takes a value or seeds=[…], given {value!r} and {seeds!r}")
        self._put(self.values, path, value if seeds is None else spread(seeds))

    def timing(self, path: str, value) -> None:
        """Keep what a clock measured, apart from the values, and print it: seconds, tokens a second, their ratios."""
        self._put(self.timings, path, value)

    def _put(self, place: dict, path: str, value) -> None:
        self._outside()
        value = json.loads(json.dumps(value, allow_nan=False))  # as the results will have it
        *parents, name = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if name in place:
            raise ValueError(f"each value is recorded once, given {path} twice")
        place[name] = value
        print(f"{path}: {value}")

    def keep(self, function: Callable, *args, seed: int = 0, **settings):
        """Return function(*args, **settings), and note in lab.seconds how long that took when it ran.

        The result is kept in .lab-cache/<post>/, under a fingerprint of the code and the values that the function
        uses, its settings and the seed, so that a lab that was cut goes on where it stood. Random numbers start from
        the seed before the call, and again after it. A function with an argument `seed` is given it. A kept function
        returns what it made: it records nothing, and changes neither its arguments nor a global.
        """
        from tools import kept

        self._outside()
        self.keeping = True
        try:
            result, self.seconds, before = kept.call(self.cache, function, args, settings, seed)
        finally:
            self.keeping = False
        self.spared += self.seconds if before else 0.0
        return result

    def _outside(self) -> None:
        if self.keeping:
            raise ValueError("a kept function returns what it made; record, draw and keep it outside of the function")

    def __getstate__(self) -> dict:
        """All of a lab that a kept function can depend on."""
        return {"device": self.device, "images": self.images, "text": self.text}

    def figure(self, name: str, draw: Callable, size: tuple[float, float] = (7.0, 3.0)):
        """Draw a figure for light and for dark pages, and return the light one to show it in the notebook.

        draw(figure) fills an empty matplotlib figure; the name's ending, .svg or .png, chooses the format.
        """
        self._outside()
        import matplotlib.pyplot as plt
        from cycler import cycler

        plain, ending = name.rsplit(".", 1)
        for theme, suffix in (("dark", ".dark"), ("light", "")):
            ink = {k: INK[theme] for k in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
            style = {"axes.edgecolor": INK[theme], "axes.facecolor": "none", "legend.frameon": False, "font.size": 10}
            style |= {
                "axes.spines.top": False,
                "axes.spines.right": False,
                "svg.hashsalt": name,
                "svg.fonttype": "path",
            }
            style |= {"axes.prop_cycle": cycler(color=COLORS[theme]), "font.family": "DejaVu Sans"}
            with plt.rc_context(ink | style):
                figure = plt.figure(figsize=size, layout="constrained")
                draw(figure)
                where = self.folder / "figures" / f"{plain}{suffix}.{ending}"
                dated = {"metadata": {"Date": None}} if ending == "svg" else {}
                figure.savefig(where, transparent=True, dpi=200, **dated)
                plt.close(figure)
        return figure

    def weights(self, model) -> None:
        """Store a network's weights, shared ones once; safetensors' load_model reads them back."""
        from safetensors.torch import save_model

        self._outside()
        save_model(model, str(self.folder / "weights" / "weights.safetensors"))

    def done(self) -> None:
        """Write the values down. The last line of every lab."""
        versions = {name: importlib.metadata.version(name) for name in VERSIONS}
        results = {"values": self.values, "timings": self.timings, "seed": 0, "versions": versions}
        results |= {"device": self.device, "seconds": round(time.time() - self.started + self.spared, 1)}
        results |= {"date": datetime.date.today().isoformat()}
        (self.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def spread(seeds: list) -> dict:
    """Mean and sample standard deviation of a number for each seed; of each name, where there is a dict for each."""
    if len(seeds) < 3:
        raise ValueError(f"three seeds or more are expected, given {len(seeds)}")
    if isinstance(seeds[0], dict):
        names = list(seeds[0])
        if any(one.keys() != seeds[0].keys() for one in seeds):
            raise ValueError(f"the same names are expected for each seed, given {[list(one) for one in seeds]}")
        return {name: spread([one[name] for one in seeds]) for name in names}
    numbers = [float(one) for one in seeds]
    return {"mean": statistics.fmean(numbers), "sd": statistics.stdev(numbers), "seeds": numbers}


def bare(source: str) -> list[str]:
    """The lines of some Python code, with comments and docstrings blanked out."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            for row in range(node.body[0].lineno, node.body[0].end_lineno + 1):
                lines[row - 1] = ""
    return lines


def definitions(source: str) -> dict[str, tuple[str, int, ast.stmt]]:
    """Each top-level function, class and constant: (fingerprint, line, tree). Comments and layout do not count."""
    lines, found = bare(source), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names, first = [node.name], min([node.lineno, *(d.lineno for d in node.decorator_list)])
        elif isinstance(node, ast.Assign):
            names, first = [t.id for t in node.targets if isinstance(t, ast.Name)], node.lineno
        else:
            continue
        text = "".join("".join(lines[first - 1 : node.end_lineno]).split())
        for name in names:
            found[name] = hashlib.sha256(text.encode()).hexdigest()[:12], node.lineno, node
    return found


def imported(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """Names that some code takes from snippets: local name -> (module's path, name there)."""
    return {
        alias.asname or alias.name: (node.module.replace(".", "/") + ".py", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("snippets.")
        for alias in node.names
    }


def reached(tree: ast.AST, root: Path) -> dict[str, dict[str, tuple[str, int]]]:
    """All definitions of snippets that some code uses, directly or not: path -> name -> (fingerprint, line)."""
    todo, found, modules = list(imported(tree).values()), {}, {}
    while todo:
        path, name = todo.pop()
        if name in found.setdefault(path, {}):
            continue
        if path not in modules:
            source = (root / path).read_text(encoding="utf-8")
            modules[path] = definitions(source), imported(ast.parse(source))
        here, elsewhere = modules[path]
        if name not in here:
            raise ValueError(f"{path} defines no {name}, which a lab imports")
        fingerprint, line, node = here[name]
        found[path][name] = fingerprint, line
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        todo += [(path, n) for n in used if n in here] + [elsewhere[n] for n in used if n in elsewhere]
    return found


def lab_code(key: str, root: Path) -> dict[str, dict[str, tuple[str, int]]]:
    """What a lab's results depend on: its own cells, and what they reach in snippets."""
    path = f"docs/labs/{key}.ipynb"
    text = (root / path).read_text(encoding="utf-8")
    cells = ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    found = {path: {}}
    for number, cell in enumerate(cells, 1):
        fingerprint = hashlib.sha256("".join("".join(bare(cell)).split()).encode()).hexdigest()[:12]
        written = json.dumps(cell.splitlines()[0] if cell else "")[:-1]  # the cell's first line, as the file has it
        line = text[: max(text.find(written), 0)].count("\n") + 1
        found[path][f"cell {number}"] = fingerprint, line
    return found | reached(ast.parse("\n".join(cells)), root)


def fingerprints(key: str) -> dict[str, dict[str, str]]:
    """The same, as the results keep it: path -> name -> fingerprint."""
    return {path: {n: f for n, (f, _) in names.items()} for path, names in lab_code(key, ROOT).items()}


def digest(path: Path) -> str:
    """A file's fingerprint."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def stale(key: str, root: Path = ROOT) -> list[str]:
    """What changed since a lab ran, as "file:line: what is wrong. how to mend it"; empty when the results are fresh."""
    mend = f"Run: make lab POST={key}"
    results = root / "docs/results" / f"{key}.json"
    if not results.is_file():
        return [f"docs/labs/{key}.ipynb:1: this lab has no results. {mend}"]
    known, problems = json.loads(results.read_text(encoding="utf-8")), []
    now = lab_code(key, root)
    for path in sorted(known["code"].keys() | now.keys()):
        old, new = known["code"].get(path, {}), now.get(path, {})
        for name in sorted(old.keys() | new.keys()):
            fingerprint, line = new.get(name, (None, 1))
            if old.get(name) != fingerprint:
                problems.append(f"{path}:{line}: {name} changed after the lab of {key} ran. {mend}")
    for path, fingerprint in known["files"].items():
        if not (root / path).is_file() or digest(root / path) != fingerprint:
            problems.append(f"{path}:1: this file is not the one that the lab of {key} wrote. {mend}")
    return problems


def publish(key: str, source: Path, code: dict[str, dict[str, str]]) -> None:
    """Move what a lab wrote in a folder to docs/; code holds the fingerprints of what it ran."""
    files = []
    figures = ROOT / "docs/figures" / key
    shutil.rmtree(figures, ignore_errors=True)
    for old in sorted((source / "figures").iterdir()):
        figures.mkdir(parents=True, exist_ok=True)
        files.append(Path(shutil.copy(old, figures / old.name)))
    if (source / "weights/weights.safetensors").is_file():
        weights = ROOT / "docs/weights" / f"{key}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        files.append(Path(shutil.copy(source / "weights/weights.safetensors", weights)))
    results = json.loads((source / "results.json").read_text())
    results["code"] = code
    results["files"] = {path.relative_to(ROOT).as_posix(): digest(path) for path in files}
    target = ROOT / "docs/results" / f"{key}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    shutil.rmtree(source)


def run(key: str, options: dict) -> None:
    """Execute a lab's notebook in a fresh kernel, keep its outputs, publish what it measured."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = ROOT / "docs/labs" / f"{key}.ipynb"
    own_data = bool(options["images"] or options["text"])
    output = ROOT / "lab-output" / key / f"{datetime.datetime.now():%Y-%m-%d-%H-%M-%S}-{os.getpid()}"
    output.mkdir(parents=True)
    options = options | {"folder": str(output)}
    notebook = nbformat.read(path, as_version=4)
    code = fingerprints(key)
    os.environ |= {"LAB_OPTIONS": json.dumps(options), "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    os.environ["PYTHONHASHSEED"] = "0"
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.on_cell_start = lambda cell, cell_index: print(f"cell {cell_index + 1} of {len(notebook.cells)}", flush=True)
    try:
        client.execute()
    except CellExecutionError as error:
        lines = str(error).strip().splitlines()
        sys.exit(f"docs/labs/{key}.ipynb stopped: {lines[-1]}\n" + "\n".join(lines[:-1][-30:]))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day, which change at every run
        if cell.cell_type == "code":  # tqdm says, with this machine's paths, that it draws no widgets
            cell.outputs = [output for output in cell.outputs if "TqdmWarning" not in output.get("text", "")]
    if own_data:
        nbformat.write(notebook, output / "lab.ipynb")
        print(f"your data: figures, values and the executed notebook are in {output.relative_to(ROOT)}/")
        return
    if fingerprints(key) != code:
        sys.exit(
            f"the code that the lab of {key} reaches was edited while it ran; docs/ is left as it was. Run it again"
        )
    nbformat.write(notebook, path)
    publish(key, output, code)
    print(f"written: docs/labs/{key}.ipynb, docs/figures/{key}/, docs/results/{key}.json")


def main() -> None:
    """`python -m tools.lab run POST` and `python -m tools.lab all`."""
    parser = argparse.ArgumentParser(prog="make lab", description="Run a post's lab.")
    parser.add_argument("what", choices=["run", "all"])
    parser.add_argument("post", nargs="?", help="Diffusion, LLM/ROPE, …")
    parser.add_argument("--images", help="a folder of your own pictures")
    parser.add_argument("--text", help="a text file of your own")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    options = vars(parser.parse_args())
    what, post = options.pop("what"), options.pop("post")
    labs = [p.relative_to(ROOT / "docs/labs").with_suffix("").as_posix() for p in (ROOT / "docs/labs").rglob("*.ipynb")]
    if what == "run" and post not in labs:
        near = difflib.get_close_matches(str(post), labs, n=1)
        parser.error(
            f"POST is one of {', '.join(sorted(labs))}; given {post}" + (f" (did you mean {near[0]}?)" * len(near))
        )
    options |= {name: str(Path(options[name]).resolve()) for name in ("images", "text") if options[name]}
    for key in [post] if what == "run" else sorted(labs):
        run(key, options)


if __name__ == "__main__":
    main()
