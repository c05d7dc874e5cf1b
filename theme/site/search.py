"""The index of the search: each page's sections with their text, the names in their code, and the symbols in formulas."""

import html
import json
import keyword
import re
from pathlib import Path

from theme.page.listings import page_url
from theme.page.source import line_of, once_per_version

POST, PAGE, LAB, SOURCE = range(4)  # in this order results are shown
HEADING = re.compile(r'<h([1-3])(?: [^>]*?)? ?id="([^"]*)"[^>]*>(.*?)</h\1>', re.S)
LEFT_OUT = re.compile(
    r'<(\w+) class="(?:claim|headerlink|equation-number|equation-test|filename|cite)"[^>]*>.*?</\1>'
    r'|<details class="fold"><summary>BibTeX</summary>.*?</details>|<svg\b.*?</svg>|<pre class="output".*?</pre>',
    re.S,
)
FOLDED = re.compile(r'<details class="fold">.*?</details>|<div [^>]*class="(?:given|library) .*?</div>', re.S)
BLOCK = re.compile(r"<pre\b.*?</pre>", re.S)
BREAK = re.compile(r"</?(?:p|li|t[dhr]|div|[uod]l|summary|figcaption|br|d[td]|h\d)\b[^>]*>")
TAG = re.compile(r"<[^>]*>")
NAME = re.compile(r"[A-Za-z]\w*[A-Z_]\w*")  # q_sample, UNet: a name that is no word
DEFINED = re.compile(r"^\s*(?:def|class) (\w+)|^([A-Z][A-Z_]+) =", re.M)

PUBLIC = re.compile(r'^(?:def|class) (?P<name>[A-Za-z]\w*)(?:.*?:\n\s*"""(?P<said>[^"\n]*))?', re.M | re.S)


def plain(markup: str) -> str:
    """HTML as text on one line."""
    return " ".join(html.unescape(TAG.sub("", BREAK.sub(" ", markup))).split())


def names(blocks: list[str]) -> tuple[set[str], set[str]]:
    """The names that blocks of code (HTML) use, and those that they define."""
    code = html.unescape(TAG.sub("", "\n".join(blocks)))
    defined = {name for found in DEFINED.findall(code) for name in found if name and name[0] != "_"} - set(keyword.kwlist)
    return {name for name in NAME.findall(code) if not name.startswith("_")}, defined


def section(anchor: str, title: str, body: str) -> list[str]:
    """One entry: anchor, heading, text, names in the code, names that open code defines."""
    body = LEFT_OUT.sub(" ", body)
    folded, _ = names(BLOCK.findall("".join(FOLDED.findall(body))))
    body = FOLDED.sub(" ", body)
    used, defined = names(BLOCK.findall(body))
    text = plain(BLOCK.sub(" ", body))
    return [anchor, title, text, " ".join(sorted((used | folded) - defined)), " ".join(sorted(defined))]


def sections(title: str, content: str) -> list[list[str]]:
    """The entries of a page: what stands above its first heading, then one for each heading."""
    parts = HEADING.split(content)
    found = [section("", title, parts[0])]
    for level, anchor, heading, body in zip(*(parts[at::4] for at in (1, 2, 3, 4)), strict=True):
        if level == "1":
            found[0] = section("", title, parts[0] + body)
        else:
            found.append(section(anchor, plain(LEFT_OUT.sub("", heading)), body))
    return found


@once_per_version
def definitions(path: Path) -> list[list[str]]:
    """The entries of a module: itself, its functions and classes, each with the first line of its docstring."""
    text = path.read_text(encoding="utf-8")
    said = text.removeprefix('"""').partition("\n")[0] if text.startswith('"""') else ""
    found = [["", path.stem, said.removesuffix('"""'), "", path.stem]]
    for one in PUBLIC.finditer(text):
        found.append([f"L{line_of(text, one.start())}", one["name"], one["said"] or "", "", one["name"]])
    return found


def entries(pages: dict[str, tuple[int, str, str, str]], root: Path) -> str:
    """The index as JSON: of each page address, title, kind, sections and badge.

    Args: pages, the kind, title, badge and HTML of each page by its address.
    """
    found = [
        [url, title, kind, sections(title, content), badge] for url, (kind, title, badge, content) in pages.items()
    ]
    for path in sorted((root / "snippets").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if path.name != "__init__.py" and "exercises" not in path.parts:
            found.append([page_url(name), name, SOURCE, definitions(path), ""])
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
