"""Nobody else is asked: what would make a reader's browser load something from another host."""

import re
from pathlib import Path

from theme.page.source import CODE, FENCE, blank, line_of, place

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
NAMESPACE = re.compile(rb"<!DOCTYPE[^>]*>|(?:\bxmlns(?::\w+)?|rdf:resource)=\"[^\"]*\"|<dc:title>[^<]*</dc:title>")
PICTURE = re.compile(r'"image/png": "[^"]*"')  # of a notebook's output: data, no address
HEAD = 2_000  # bytes of a drawn figure in which its namespaces stand
ASKING = {".md", ".html", ".css", ".js", ".svg", ".ipynb", ".yml"}


def third_party(folders: list[Path], root: Path) -> list[str]:
    """Pictures, scripts, styles, fonts and frames from other hosts, in sources or in a built site; links are fine."""
    problems = []
    files = [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))]
    for path in files:
        if path.suffix not in ASKING or not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix == ".svg" and b"//" not in data[HEAD:] + NAMESPACE.sub(b"", data[:HEAD]):
            continue  # it names namespaces alone, as every drawn figure does
        text = data.decode()
        if path.suffix == ".md":
            text = blank(CODE, blank(FENCE, text))
        if path.suffix == ".ipynb":
            text = PICTURE.sub("", text)
        for pattern in REQUESTS:
            for match in pattern.finditer(text):
                here, asked = place(path, root, line_of(text, match.end())), " ".join(match[0].split())
                mend = "Keep a copy in the project, or make it a link"
                problems.append(f"{here}: a reader's browser would ask another host: {asked}. {mend}")
    return problems
