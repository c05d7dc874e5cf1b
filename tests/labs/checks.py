"""What a lab must hold: each check returns its problems as "file:line: what is wrong. how to mend it"."""

import json
import re
from pathlib import Path

from theme.page.pages import posts
from tools import reached

SEEN = {".svg", ".png", ".jpg", ".webp"}


def notebooks(root: Path) -> list[str]:
    """Posts without a lab, labs without a post, and labs that were not executed from top to bottom without an error."""
    problems, keys = [], {page.key for page in posts(root)}
    labs = {path.relative_to(root / "docs/labs").with_suffix("").as_posix(): path for path in found(root)}
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


def found(root: Path) -> list[Path]:
    return [path for path in sorted((root / "docs/labs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]


def stale(root: Path) -> list[str]:
    """Results, figures and weights that are not those of the code as it stands."""
    keys = [path.relative_to(root / "docs/labs").with_suffix("").as_posix() for path in found(root)]
    return [problem for key in keys for problem in reached.stale(key, root)]


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
    for path in sorted((root / "docs/figures").rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix in SEEN and name.replace(".dark.", ".") not in used:
            problems.append(f"{name}:1: no page shows this figure. Show it, or draw it no more in the lab")
    return problems
