"""What a lab must hold: each check returns its problems as "file:line: what is wrong. how to mend it"."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from theme.page import records
from theme.page.pages import posts
from tools import reached
from tools.labs import leaves

PATH = re.compile(r"[\w.+-]+")
HERE = re.compile(r"(?<![\w:/.])(?:/(?:work|home|root|Users|tmp)/|[A-Za-z]:\\)[^\s'\"<>]+")
SEEN = {".svg", ".png", ".jpg", ".webp"}


def notebooks(root: Path) -> list[str]:
    """Posts without a lab, labs without a post, and labs that were not executed from top to bottom without an error."""
    problems, keys = [], {page.key for page in posts(root)}
    labs = {key: root / f"docs/labs/{key}.ipynb" for key in reached.labs(root)}
    problems += [f"docs/posts/{key}.md:1: no lab. Write docs/labs/{key}.ipynb" for key in sorted(keys - labs.keys())]
    problems += [f"docs/labs/{key}.ipynb:1: no post. Remove it or write one" for key in sorted(labs.keys() - keys)]
    for key, path in labs.items():
        text = path.read_text(encoding="utf-8")
        lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(r'^\s*"cell_type":', text, re.M)]
        runs = 0
        for number, cell in enumerate(json.loads(text)["cells"]):
            if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
                continue
            here = f"docs/labs/{key}.ipynb:{lines[number] if number < len(lines) else 1}"
            runs += 1
            if cell["execution_count"] != runs:
                problems.append(f"{here}: the cell was not run after the one before it. Run: make lab POST={key}")
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    problems.append(f"{here}: the cell ended with {output['ename']}. Mend it, and: make lab POST={key}")
    return problems


def stale(root: Path) -> list[str]:
    """Results, figures and weights that are not those of the code as it stands."""
    return [problem for key in reached.labs(root) for problem in reached.stale(key, root)]


def sealed(root: Path) -> list[str]:
    """Results that are not what the executed notebook printed when it recorded them."""
    return [problem for key in reached.labs(root) for problem in broken_seals(key, root)]


def broken_seals(key: str, root: Path) -> Iterator[str]:
    path = root / f"docs/results/{key}.json"
    if not path.is_file():
        return  # another check says so
    text = path.read_text(encoding="utf-8")
    written = json.loads(text)
    kept = leaves(written.get("timings", {})) | leaves(written["values"])
    lines, said = lines_of(text), printed(key, root, kept)
    for name, value in kept.items():
        here = f"docs/results/{key}.json:{lines.get(name, 1)}"
        if name not in said:
            yield f"{here}: {name} is {value!r}, but the lab printed no such value. Run: make lab POST={key}"
        elif said[name] != value:
            yield f"{here}: {name} is {value!r}, but the lab printed {said[name]!r}. Undo this, or: make lab POST={key}"
    for name in said.keys() - kept.keys():
        yield f"docs/results/{key}.json:1: the lab printed {name}, which is missing here. Run: make lab POST={key}"


def lines_of(results: str) -> dict[str, int]:
    """The line of each value of a results file, which has one level more with each space at a line's start."""
    found, inside, places = {}, [], {}
    for number, line in enumerate(results.split("\n"), 1):
        depth, name = len(line) - len(line.lstrip(" ")), re.match(r' *"((?:[^"\\]|\\.)*)": ', line)
        inside = inside[: max(depth - 1, 0)]
        if line.strip(" ,") not in ("{", "}", "]", "") or name:
            places[depth, *inside] = places.get((depth, *inside), -1) + 1
            inside.append(name[1] if name else str(places[depth, *inside]))
            found.setdefault(".".join(inside[1:]), number)
    return found


def printed(key: str, root: Path, kept: dict) -> dict:
    """The values that `lab.record` and `lab.timing` printed in an executed lab, by dotted path."""
    found = {}
    for cell in json.loads((root / f"docs/labs/{key}.ipynb").read_text(encoding="utf-8"))["cells"]:
        outputs = [one for one in cell.get("outputs", []) if one["output_type"] == "stream"]
        for line in "".join("".join(one["text"]) for one in outputs).split("\n"):
            name, colon, value = line.partition(": ")
            if colon and PATH.fullmatch(name):
                found |= {name: value} if isinstance(kept.get(name), str) else leaves(as_recorded(value), name)
    return found


def as_recorded(text: str):
    """The number, truth, list or dict that was printed, as JSON has it; a text where it is none of these."""
    try:
        return json.loads(json.dumps(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError):
        return text


def outputs(root: Path) -> list[str]:
    """Absolute paths in what labs and programs printed: they say whose machine it was, and lead nowhere."""
    problems = []
    paths = [root / f"docs/labs/{key}.ipynb" for key in reached.labs(root)]
    for path in [*paths, *sorted((root / "docs/results").rglob("*.program.json"))]:
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        found = json.loads(text)
        cells = found.get("cells", [{"outputs": found.get("printed", [])}])
        for string in (string for cell in cells for string in strings(cell.get("outputs", []))):
            for match in HERE.finditer(string):
                line = text[: text.find(json.dumps(match[0], ensure_ascii=False)[1:-1])].count("\n") + 1
                mend = "Print the file's name alone, and run it again"
                problems.append(f"{name}:{line}: a path of one machine was printed, {match[0]}. {mend}")
    return problems


def strings(values) -> Iterator[str]:
    """All texts in an output, but pictures in base64."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, list | dict):
        for value in [v for k, v in values.items() if k != "image/png"] if isinstance(values, dict) else values:
            yield from strings(value)


def figures(root: Path) -> list[str]:
    """Figures that a page names but no lab has drawn, and figures that no page shows."""
    problems, used = [], set()
    for page in posts(root):
        for match in re.finditer(r"figures/[\w./-]+\.(?:svg|png|jpg|webp)", page.text):
            path = (root / "docs" / match[0]).relative_to(root).as_posix()
            used.add(path)
            if not (root / path).is_file():
                line = page.first_line + page.text.count("\n", 0, match.start())
                here = f"docs/posts/{page.key}.md:{line}"
                problems.append(f"{here}: there is no {path}. Draw it in the lab: make lab POST={page.key}")
        used.add(f"docs/{(page.meta.get('picture') or {}).get('file')}")
        saved = (records.load(root, page.key) or {"pictures": ()})["pictures"]
        used |= {records.picture(root, page.key, name).relative_to(root).as_posix() for name in saved}
    for path in sorted((root / "docs/figures").rglob("*")):
        name = path.relative_to(root).as_posix()
        drawn_by_lab = path.suffix in SEEN and path.parent.name != "program"  # a program's have their own check
        if drawn_by_lab and name.replace(".dark.", ".") not in used:
            problems.append(f"{name}:1: no page shows this figure. Show it, or draw it no more in the lab")
    return problems
