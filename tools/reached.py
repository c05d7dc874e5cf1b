"""What code a lab's results depend on, and what has changed since: fingerprints without comments and layout."""

import ast
import hashlib
import io
import json
import platform
import tokenize
from pathlib import Path

from tools.lab import ROOT

PYTHON_DATA = {"snippets/data/text.py", "snippets/data/code.py"}  # read Python's own library, which versions change


def labs(root: Path = ROOT) -> list[str]:
    """The posts that have a lab."""
    folder = root / "docs/labs"
    found = (p for p in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts)
    return [path.relative_to(folder).with_suffix("").as_posix() for path in found]


def cells(key: str, root: Path) -> list[str]:
    """The code cells of a lab."""
    notebook = json.loads((root / f"docs/labs/{key}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


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
    sources, found = cells(key, root), {path: {}}
    for number, cell in enumerate(sources, 1):
        fingerprint = hashlib.sha256("".join("".join(bare(cell)).split()).encode()).hexdigest()[:12]
        written = json.dumps(cell.splitlines()[0] if cell else "")[:-1]  # the cell's first line, as the file has it
        line = text[: max(text.find(written), 0)].count("\n") + 1
        found[path][f"cell {number}"] = fingerprint, line
    return found | reached(ast.parse("\n".join(sources)), root)


def fingerprints(key: str, root: Path = ROOT) -> dict[str, dict[str, str]]:
    """The same, as the results keep it: path -> name -> fingerprint."""
    return {path: {n: f for n, (f, _) in names.items()} for path, names in lab_code(key, root).items()}


def inputs(key: str, root: Path = ROOT) -> dict[str, str]:
    """The weights of other labs that a lab loads: path -> fingerprint of the file."""
    nodes = ast.walk(ast.parse("\n".join(cells(key, root))))
    named = {n.value for n in nodes if isinstance(n, ast.Constant) and str(n.value).startswith("docs/weights/")}
    return {path: digest(root / path) for path in sorted(named) if (root / path).is_file()}


def digest(path: Path) -> str:
    """A file's fingerprint."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def stale(key: str, root: Path = ROOT) -> list[str]:
    """What changed since a lab ran, as "file:line: what is wrong. how to mend it"; empty when the results are fresh."""
    results = root / "docs/results" / f"{key}.json"
    if not results.is_file():
        return [f"docs/labs/{key}.ipynb:1: this lab has no results. Run: make lab POST={key}"]
    known, now, problems = json.loads(results.read_text(encoding="utf-8")), lab_code(key, root), []
    for path in sorted(known["code"].keys() | now.keys()):
        old, new = known["code"].get(path, {}), now.get(path, {})
        for name in sorted(old.keys() | new.keys()):
            fingerprint, line = new.get(name, (None, 1))
            if old.get(name) != fingerprint:
                problems.append(f"{path}:{line}: {name} changed after the lab of {key} ran. Run: make relab POST={key}")
    files = [(path, one, "this file is not the one that the lab of {} wrote") for path, one in known["files"].items()]
    read = known.get("inputs", {}).items()
    files += [(path, one, "these weights are not the ones that the lab of {} read") for path, one in read]
    for path, fingerprint, wrong in files:
        if not (root / path).is_file() or digest(root / path) != fingerprint:
            problems.append(f"{path}:1: {wrong.format(key)}. Run: make lab POST={key}")
    python, here = known["versions"].get("python"), platform.python_version()
    note = f" (its texts came with Python {python}, and those of {here} give other numbers)"
    return [problem + note for problem in problems] if python not in (None, here) else problems
