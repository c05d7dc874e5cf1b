"""What a page's source must hold: each check returns its problems as "file:line: what is wrong. how to mend it"."""

import ast
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from theme.page.equations import FENCE, blank, labels, markers
from theme.page.pages import INCLUDE, Page, posts, python_blocks

OPENING = re.compile(r"```(python|python fold|text|bash|bibtex)")
MARK = re.compile(r"\s*# --8<-- \[(start|end):([a-z][a-z0-9-]*)\]")
ANY_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


def place(path: Path, root: Path, line: int) -> str:
    return f"{path.relative_to(root).as_posix()}:{line}"


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def markdown(root: Path) -> list[Path]:
    """All Markdown files of docs/."""
    return sorted((root / "docs").rglob("*.md"))


# Printed code is tested code


def sections(root: Path) -> tuple[dict[tuple[str, str], tuple[int, int]], list[str]]:
    """Lines of each section of snippets by (path, name), and problems: malformed, unclosed, twice."""
    found, problems = {}, []
    for path in sorted((root / "snippets").rglob("*.py")):
        name, opened = path.relative_to(root).as_posix(), {}
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            mark = MARK.fullmatch(line)
            if mark is None:
                if "8<" in line:
                    mend = "A mark has its line to itself: # --8<-- [start:name]"
                    problems.append(f"{name}:{number}: {line.strip()!r} is no mark of a section. {mend}")
                continue
            kind, section = mark.groups()
            if kind == "start" and (section in opened or (name, section) in found):
                problems.append(f"{name}:{number}: section {section} begins twice. Give the second another name")
            elif kind == "start":
                opened[section] = number
            elif section not in opened:
                mend = f"Add # --8<-- [start:{section}] above it"
                problems.append(f"{name}:{number}: section {section} ends here but never began. {mend}")
            else:
                found[name, section] = opened.pop(section), number
        for section, number in opened.items():
            mend = f"Add # --8<-- [end:{section}]"
            problems.append(f"{name}:{number}: section {section} is never closed. {mend}")
            found[name, section] = number, number
    return found, problems


def fences(root: Path) -> list[str]:
    """Fences that no runner sees, Python that is no include, and includes that would be printed as they stand."""
    return [problem for page in posts(root) for problem in fence_problems(page.path, root)]


def fence_problems(path: Path, root: Path) -> Iterator[str]:
    opened, kind, lines = "", "", 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), None], 1):
        here = place(path, root, number)
        if line is None:
            if opened:
                yield f"{opened}: this fence is never closed. End the block with a line ```"
        elif opened and line == "```":
            if kind.startswith("python") and lines != 1:
                yield f'{opened}: a python block is one include, given {lines} lines. Write --8<-- "module:section"'
            opened = kind = ""
        elif not opened and ANY_FENCE.match(line):
            match = OPENING.fullmatch(line)
            if match is None:
                mend = "Write ```python, ```python fold, ```text, ```bash or ```bibtex at the beginning of the line"
                yield f"{here}: no runner and no test sees the fence {line!r}. {mend}"
            opened, kind, lines = here, match[1] if match else "other", 0
        elif opened and ANY_FENCE.match(line):
            yield f"{here}: the fence {line!r} inside a block closes nothing. End the block with a line ```"
        else:
            lines = lines + 1 if opened else 0
            if "8<" in line:
                if not INCLUDE.fullmatch(line):
                    mend = 'Write it with quotes, alone on its line, without spaces around: --8<-- "snippets/x.py:name"'
                    yield f"{here}: {line!r} is no include of a section. {mend}"
                elif not kind.startswith("python"):
                    yield f"{here}: this include is in no python block. Put it between ```python and ```"
            elif kind.startswith("python"):
                yield f"{here}: {line!r} is typed on the page. Include a section of a module instead"


def includes(root: Path) -> list[str]:
    """Includes of sections that do not exist, sections that no page shows, and imports of ours that one would show."""
    have, problems = sections(root)
    used = set()
    for page in posts(root):
        for match in INCLUDE.finditer(page.text):
            wanted = match["path"], match["section"]
            used.add(wanted)
            if wanted not in have:
                near = difflib.get_close_matches(wanted[1], [name for path, name in have if path == wanted[0]], n=1)
                mend = f"Write {near[0]}" if near else "Mark the section in the module"
                line = page.first_line + page.text.count("\n", 0, match.start())
                problems.append(f"{place(page.path, root, line)}: {wanted[0]} has no section {wanted[1]}. {mend}")
    for (path, name), (first, last) in have.items():
        if (path, name) not in used:
            problems.append(f"{path}:{first}: no page shows the section {name}. Include it, or remove its marks")
            continue
        for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{'.' * node.level}{node.module or ''}"] if isinstance(node, ast.ImportFrom) else []
            if any(re.match(r"snippets\b|\.", one) for one in names) and first <= node.lineno <= last:
                mend = "Move it out of the section, and include the sections that it imports"
                problems.append(f"{path}:{node.lineno}: a page would show this import of our own code. {mend}")
    return problems


def unseen_blocks(root: Path) -> list[str]:
    """Pages whose Python fences are not all among the blocks that run."""
    problems = []
    have, _ = sections(root)
    for page in posts(root):
        if any(include not in have for include in page.includes) or any(fence_problems(page.path, root)):
            continue  # other checks say so
        written = len(re.findall(r"^```python(?: fold)?$", page.text, re.M))
        run = len(python_blocks(page, root))
        if written != run:
            mend = "Remove comments of pytest-codeblocks, and ``` inside of docstrings"
            problems.append(f"{place(page.path, root, 1)}: {written} python fences, but {run} blocks run. {mend}")
    return problems


# Equations have tests


def equations(root: Path) -> list[str]:
    """Numbered equations without a test, or with the same id; tests' markers without an equation."""
    numbered, problems = {}, []
    tested = {one for one, _, _ in markers(root)}
    for page in posts(root):
        for label, line in labels(page):
            here = place(page.path, root, line)
            if label in numbered:
                problems.append(f"{here}: equation {label} is at {numbered[label]} already. Choose another id")
            elif not re.fullmatch(r"[a-z][a-z0-9-]*", label):
                problems.append(f"{here}: {label!r} is no id. Use small letters, digits and -")
            elif label not in tested:
                mend = f'Mark the test that checks it with @pytest.mark.equation("{label}")'
                problems.append(f"{here}: no test checks the numbered equation {label}. {mend}")
            numbered.setdefault(label, here)
        outside = re.search(r"\\label\{", blank(re.compile(r"\$\$.*?\$\$", re.S), blank(FENCE, page.text)))
        if outside:
            line = page.first_line + line_of(page.text, outside.start()) - 1
            problems.append(f"{place(page.path, root, line)}: a \\label outside of a formula. Put it between $$ and $$")
    for label, path, line in markers(root):
        if label is None:
            problems.append(f"{path}:{line}: the marker's id is not written out. Write it as a string")
        elif label not in numbered:
            near = difflib.get_close_matches(label, numbered, n=1)
            mend = f"Write {near[0]}" if near else f"Number the equation with \\label{{{label}}}, or remove the marker"
            problems.append(f"{path}:{line}: no page has the equation {label} that this test checks. {mend}")
    return problems


# Numbers come from runs

CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
NOT_PROSE = [
    FENCE,
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"\$\$.*?\$\$", re.S),
    CODE,
    re.compile(r"(?<![\\$])\$(?![\s$])(?:[^$\\\n]|\\.|\n(?!\n))+?(?<!\s)\$(?!\d)"),
    re.compile(r"\{\{.*?\}\}"),
    re.compile(r"(?<=\])\([^)\n]*\)"),  # targets of links and pictures
    re.compile(r"^\[[^\]]+\]:.*$", re.M),
    re.compile(r"<[^<>]*>"),
    re.compile(r"https?://\S+"),
    re.compile(r"\{[^{}\n]*[.#=][^{}\n]*\}"),  # attributes: { .wide #id }
]
NUMBER = re.compile(
    r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e-?\d+)?)(?P<percent>\s?%)?(?![\w,.]\d|\w)"
)
CONSTANT = "a constant that merely coincides with it is set as $maths$ or `code`"
LONGEST = 20  # a longer list in the results is a curve, which no sentence quotes


def prose(text: str) -> str:
    """A page's text with all that is no prose turned to spaces."""
    for pattern in NOT_PROSE:
        text = blank(pattern, text)
    return text


def numbers(values, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of the results, with its dotted path."""
    if isinstance(values, dict | list):
        if isinstance(values, list) and len(values) > LONGEST:
            return
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield path, abs(values)


def spec(match: re.Match, value: float) -> str | None:
    """The format with which a result gives the number as typed; None if it is another number, or a round one."""
    typed, percent = match["number"], match["percent"]
    plain = typed.replace(",", "")
    digits = plain.split("e")[0].replace(".", "").lstrip("0")
    if len(digits) < (2 if "." in plain or percent or "e" in plain else 3):
        return None
    if re.fullmatch(r"(19|20)\d\d", typed) and not percent:
        return None  # a year
    comma = "," if "," in typed else ""
    decimals = len(plain.split("e")[0].partition(".")[2])
    if "e" in plain:
        return f".{decimals}e" if float(f"{value:.{decimals}e}") == float(plain) else None
    if percent and f"{value:.{decimals}%}" == f"{plain}%":
        return f".{decimals}%"
    if f"{value:.{decimals}f}" != plain:
        return None
    return comma if decimals == 0 and value == int(value) else f"{comma}.{decimals}f"


def typed_numbers(root: Path) -> list[str]:
    """Numbers typed in prose that are in the page's results."""
    problems = []
    for page in posts(root):
        results = root / "docs/results" / f"{page.key}.json"
        if not results.is_file():
            continue
        values = list(numbers(json.loads(results.read_text(encoding="utf-8"))["values"]))
        for match in NUMBER.finditer(prose(page.text)):
            found = next(((path, form) for path, value in values if (form := spec(match, value)) is not None), None)
            if found is None:
                continue
            here = place(page.path, root, page.first_line + page.text.count("\n", 0, match.start()))
            form = f" | {found[1]}" if found[1] else ""
            mend = f"Write {{{{ {page.key}: {found[0]}{form} }}}}"
            problems.append(f"{here}: {match[0]} is typed by hand, but is a result. {mend}; {CONSTANT}")
    return problems


# Everybody can see it, and nobody else is asked

IMAGE = re.compile(r"!\[([^\]]*)\]\s*[\[(]")
IMG = re.compile(r"<img\b[^>]*>", re.S | re.I)
ALT = re.compile(r"\balt\s*=\s*(\\?[\"'])(?P<text>.*?)\1", re.S | re.I)


def alternative_text(root: Path) -> list[str]:
    """Pictures without alternative text in Markdown, templates and notebooks."""
    problems, mend = [], "Say in a sentence what it shows"
    for path in [*markdown(root), *sorted((root / "theme").rglob("*.html"))]:
        text = blank(CODE, blank(FENCE, path.read_text(encoding="utf-8")))
        found = [(m, m[1]) for m in IMAGE.finditer(text) if path.suffix == ".md"]
        found += [(m, alt["text"] if (alt := ALT.search(m[0])) else "") for m in IMG.finditer(text)]
        for match, alt in found:
            if not alt.strip():
                here = place(path, root, line_of(text, match.start()))
                problems.append(f"{here}: the picture has no alternative text. {mend}")
    for page in posts(root):
        picture = page.meta.get("picture")
        if picture is not None and not str(picture.get("alt") or "").strip():
            problems.append(f"{key_line(page, root, 'picture')}: the card's picture has no alternative text. {mend}")
    for path in sorted((root / "docs/labs").rglob("*.ipynb")):
        problems += notebook_pictures(path, root)
    return problems


def notebook_pictures(path: Path, root: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = [line_of(text, match.start()) for match in re.finditer(r'^\s*"cell_type":', text, re.M)]
    for number, cell in enumerate(json.loads(text)["cells"]):
        source, here = "".join(cell["source"]), place(path, root, lines[number] if number < len(lines) else 1)
        if cell["cell_type"] == "markdown":
            source = blank(CODE, blank(FENCE, source))
            empty = [m for m in IMAGE.finditer(source) if not m[1].strip()]
            empty += [m for m in IMG.finditer(source) if not ((alt := ALT.search(m[0])) and alt["text"].strip())]
            if empty:
                yield f"{here}: a picture of this cell has no alternative text. Say in a sentence what it shows"
        for output in cell.get("outputs", []):
            for kind in (kind for kind in output.get("data", {}) if kind.startswith("image/")):
                metadata = output.get("metadata", {})
                if not (metadata.get(kind, {}).get("alt") or metadata.get("alt") or cell["metadata"].get("alt")):
                    mend = 'Give the cell one in its metadata: "alt": "what it shows"'
                    yield f"{here}: the picture that this cell draws has no alternative text. {mend}"


HOST = r"(?:https?:)?//[\w-]"
REQUESTS = [
    re.compile(rf"!\[[^\]]*\]\(\s*<?{HOST}[^)\s]*"),
    re.compile(
        r"<(?:img|script|iframe|source|video|audio|track|embed|object|input|image|use)\b[^>]*?\b"
        rf"(?:src|srcset|data|poster|(?:xlink:)?href)\s*=\s*\\?[\"']?\s*{HOST}[^\"'\s>]*",
        re.S | re.I,
    ),
    re.compile(
        rf"<link\b(?![^>]*\brel\s*=\s*[\"']?(?:canonical|author|license|alternate|next|prev|me)\b)[^>]*?\bhref\s*=\s*\\?[\"']?{HOST}[^\"'\s>]*",
        re.S | re.I,
    ),
    re.compile(rf"\burl\(\s*\\?[\"']?{HOST}[^)\"'\s]*", re.I),
    re.compile(rf"@import\s+\\?[\"']{HOST}[^\"'\s]*", re.I),
    re.compile(rf"\b(?:fetch|import|importScripts|Worker|EventSource|sendBeacon)\s*\(\s*[\"'`]{HOST}[^\"'`\s]*"),
    re.compile(rf"^\s*-\s*(?:path:\s*)?[\"']?{HOST}\S*\.(?:js|mjs|css)\b\S*", re.M),
]
ASKING = {".md", ".html", ".css", ".js", ".svg", ".ipynb", ".yml"}


def third_party(folders: list[Path], root: Path) -> list[str]:
    """Pictures, scripts, styles, fonts and frames from other hosts, in sources or in a built site; links are fine."""
    problems = []
    files = [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))]
    for path in files:
        if path.suffix not in ASKING or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            text = blank(CODE, blank(FENCE, text))
        for pattern in REQUESTS:
            for match in pattern.finditer(text):
                here, asked = place(path, root, line_of(text, match.end())), " ".join(match[0].split())
                mend = "Keep a copy in the project, or make it a link"
                problems.append(f"{here}: a reader's browser would ask another host: {asked}. {mend}")
    return problems


def sources(root: Path) -> list[Path]:
    """What the site is made from."""
    return [root / "docs", root / "theme", *root.glob("mkdocs.yml")]


# Finished

UNFINISHED = re.compile("TO" + r"DO[(:]")


def unfinished(root: Path) -> list[str]:
    """Lines that a template left to be written."""
    problems = []
    for folder in ("docs", "snippets", "tests"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".md", ".py", ".ipynb", ".json", ".yml"} and path.is_file():
                for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                    if UNFINISHED.search(line):
                        todo = line.strip().strip('",').removesuffix("\\n")
                        problems.append(f"{place(path, root, number)}: {todo!r} is left. Write what it asks for")
    return problems


def key_line(page: Page, root: Path, key: str) -> str:
    """File and line of a key of the front matter; the first line where it is missing."""
    lines = page.path.read_text(encoding="utf-8").split("\n")
    return place(page.path, root, next((n for n, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1))


def front_matter(root: Path) -> list[str]:
    """Posts whose front matter lacks what the index and the checks read."""
    problems = []
    for page in posts(root):
        badge, picture, module = (page.meta.get(key) for key in ("badge", "picture", "module"))
        for key in ("title", "description"):
            if not page.meta.get(key):
                problems.append(f"{key_line(page, root, key)}: no {key}. Write it in the front matter")
        if not isinstance(badge, dict) or not {"label", "message"} <= badge.keys():
            mend = "Write badge: {label: DDPM, message: Diffusion Models}"
            problems.append(f"{key_line(page, root, 'badge')}: no badge. {mend}")
        if not isinstance(picture, dict) or not (root / "docs" / str(picture.get("file"))).is_file():
            mend = "Write picture: {file: figures/…, alt: …}"
            problems.append(f"{key_line(page, root, 'picture')}: no picture, or one that is not below docs/. {mend}")
        if not isinstance(module, str) or not (root / module).is_file():
            mend = "Write module: snippets/….py"
            problems.append(f"{key_line(page, root, 'module')}: the module {module} does not exist. {mend}")
        elif module not in {path for path, _ in page.includes}:
            mend = "Include its sections"
            problems.append(f"{key_line(page, root, 'module')}: the page shows nothing of its module {module}. {mend}")
    return problems


def programs_import(page: Page, root: Path) -> set[str]:
    """The top-level packages that a page's program imports."""
    found = set()
    for node in ast.walk(ast.parse("\n\n".join(python_blocks(page, root)))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or "").partition(".")[0])
    return found
