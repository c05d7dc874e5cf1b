"""Live figures: {{ live: Draw ten digits }} on a line of its own makes the figure above it compute.

The build wraps that figure into <live-figure>. Its script is docs/live/<post>.js; what the script computes with lies in
docs/live/<post>/ (networks and tables, by `make live`), or is printed code of the page, run as text by Pyodide:

    {{ live: Score your own | snippets/llm/evaluation.py: tokens bleu rouge }}

takes those sections of the module, in this order, with what the module imports of the standard library. A file
docs/live/<post>/live.py comes behind them: it defines live(given), which calls them with what the script sends.

    {{ live: Draft and check + LLM/Decoder-Only/llama }}

loads a network of another post's figure, too; several have spaces between them.
"""

import ast
import json
import re
import xml.etree.ElementTree as etree
from pathlib import Path

from markdown.treeprocessors import Treeprocessor

from theme.page.pages import ROOT, Page
from theme.page.sections import marked
from theme.page.source import Source, once_per_version

LIVE = re.compile(r"\{\{ *live: *(?P<label>[^+|}]+?) *(?:\+ *(?P<others>[^|}]+?) *)?(?:\| *(?P<code>[^}]+?) *)?\}\}")
ENGINES = {
    "ort": ["ort.mjs", "ort-wasm-simd-threaded.wasm"],
    "pyodide": ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json"],
}
BEFORE = "assets/verbatim/live"
STANDARD = {
    "collections",
    "dataclasses",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "random",
    "re",
    "statistics",
}
STANDARD |= {"string", "typing", "unicodedata", "bisect", "operator", "copy", "sys"}


@once_per_version
def _imports(path: Path) -> str:
    """The lines of a module that import from the standard library."""
    lines = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if names and all(name.partition(".")[0] in STANDARD for name in names):
            lines.append(ast.unparse(node))
    return "\n".join(lines)


def python(key: str, sections: str, root: Path = ROOT) -> str:
    """The Python of a live figure: sections as they are printed, and the few lines that call them."""
    parts = []
    for module in re.split(r"\s*;\s*", sections.strip()):
        path, _, names = module.partition(":")
        known = marked(root / path)[0] if (root / path).is_file() else {}
        lines = (root / path).read_text(encoding="utf-8").split("\n") if known else []
        parts.append(_imports(root / path) if known else "")
        for name in names.split():
            if name not in known:
                raise ValueError(f"{path} has no section {name}. It has {', '.join(known) or 'none'}")
            first, last = known[name]
            parts.append("\n".join(lines[first : last - 1]).strip("\n"))
    parts.append((root / f"docs/live/{key}/live.py").read_text(encoding="utf-8"))
    return "\n\n\n".join(parts).strip("\n") + "\n"


def figure(post: Page) -> re.Match | None:
    """The notation of a post's live figure."""
    return LIVE.search(post.text)


def made(post: Page, root: Path = ROOT) -> str | None:
    """The Python that the build writes for a post, as live/<post>/code.py."""
    found = figure(post)
    return python(post.key, found["code"], root) if found and found["code"] else None


@once_per_version
def packages(path: Path) -> list[list[str]]:
    """What the site serves of npm's packages, by theme/packages.txt: address below the assets, path in node_modules."""
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def files(key: str, sections: str | None, root: Path = ROOT, others: str | None = None) -> dict[str, int]:
    """What the first click loads, by address below the site, with its bytes; others are networks of other posts."""
    folder = root / "docs/live" / key
    own = {f"live/{key}/{p.name}": p.stat().st_size for p in sorted(folder.glob("*")) if p.suffix in (".onnx", ".json")}
    own |= {f"live/{name}.onnx": (root / f"docs/live/{name}.onnx").stat().st_size for name in (others or "").split()}
    sources = {f"assets/verbatim/{address}": path for address, path in packages(root / "theme/packages.txt")}
    engines = ["ort"] * any(name.endswith(".onnx") for name in own) + ["pyodide"] * bool(sections)
    names = [f"{BEFORE}/{engine}/{name}" for engine in engines for name in ENGINES[engine]]
    found = {name: (ROOT / "node_modules" / sources[name]).stat().st_size for name in names}
    if sections:
        own[f"live/{key}/code.py"] = len(python(key, sections, root).encode())
    return found | own


class Live(Treeprocessor):
    """Wrap the figure above a notation into the element that computes."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Replace each notation, of which a page has one."""
        for parent in list(root.iter()):
            for child in list(parent):
                found = LIVE.fullmatch((child.text or "").strip()) if child.tag == "p" and not len(child) else None
                if found:
                    self._wrap(parent, child, found)

    def _wrap(self, parent: etree.Element, child: etree.Element, found: re.Match) -> None:
        source, children = self.source, list(parent)
        above = children[children.index(child) - 1] if children.index(child) else None
        if above is None or above.tag != "figure" or not source.key:
            raise source.error_at("{{ live:", "a live figure stands below a picture with a caption, on a post")
        script = source.root / f"docs/live/{source.key}.js"
        if not script.is_file():
            raise source.error_at("{{ live:", f"there is no docs/live/{source.key}.js. Write the figure's script")
        try:
            sizes = files(source.key, found["code"], source.root, found["others"])
        except (ValueError, OSError) as error:
            raise source.error_at("{{ live:", str(error)) from error
        child.text, child.tag = None, "live-figure"
        child.set("data-label", found["label"])
        child.set("data-root", source.link("") if source.url else "./")
        child.set("data-script", f"live/{source.key}.js")
        child.set("data-files", json.dumps(sizes, separators=(",", ":")))
        parent.remove(above)
        child.append(above)
