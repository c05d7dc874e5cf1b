"""A lab's notebook as Markdown with its outputs, so that it goes through the same pipeline as a post."""

import base64
import html
import json
import re
from pathlib import Path
from urllib.parse import quote

from theme.page.pictures import measure
from theme.page.source import once_per_version

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d{4,}(?:e[+-]?\d+)?(?![\w.])")
MARKUP = re.compile(r"^#+\s*|[*_`$]|(?<=\])\([^)]*\)|[\[\]]")


def _terminal(text: str) -> str:
    """What a terminal shows in the end: of a progress bar, its last state."""
    lines = ANSI.sub("", text).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines).strip("\n")


def short(text: str) -> str:
    """Numbers with four significant digits, for the eye: the notebook beside the page has them whole."""
    return NUMBER.sub(lambda found: f"{float(found[0]):{'.1f' if abs(float(found[0])) >= 1000 else '.4g'}}", text)


def _preformatted(text: str) -> str:
    return f'<pre class="output" tabindex="0">{html.escape(_terminal(text), quote=False)}</pre>'


def _picture(kind: str, data: str, alt: str) -> str:
    raw = base64.b64decode(data) if kind == "image/png" else data.encode()
    address = f"{kind};base64,{data.strip()}" if kind == "image/png" else f"{kind},{quote(data)}"
    width, height = measure(raw, "an output")
    size = f'width="{width}" height="{height}" loading="lazy" decoding="async"'
    return f'<p class="output"><img src="data:{address}" alt="{html.escape(alt)}" {size}></p>'


def _output(output: dict, alt: str) -> str:
    """One output of a cell as HTML."""
    if output["output_type"] == "error":
        return _preformatted(f"{output['ename']}: {output['evalue']}")
    if output["output_type"] == "stream":
        return _preformatted(short("".join(output["text"])))
    data = {kind: "".join(value) for kind, value in output["data"].items() if kind != "application/json"}
    for kind in ("image/svg+xml", "image/png"):
        if kind in data:
            return _picture(kind, data[kind], alt)
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    return _preformatted(data.get("text/plain", ""))


@once_per_version
def read(path: Path) -> tuple[str, dict[str, str], tuple[int, ...]]:
    """The notebook as Markdown, the HTML of its outputs by name, and the offset at which each cell starts."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    text, outputs, cells, above = "", {}, [], ""
    for number, cell in enumerate(notebook["cells"], 1):
        cells.append(len(text))
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text += source + "\n\n"
            above = next((MARKUP.sub("", line).strip() for line in source.split("\n") if line.strip()), "")
        elif cell["cell_type"] == "code":
            fence = max(re.findall("`{3,}", source), default="``") + "`"
            text += f"{fence}python\n{source}\n{fence}\n\n" if source.strip() else ""
            alt = cell["metadata"].get("alt", above)
            made = "\n".join(_output(output, alt) for output in cell["outputs"])
            if made:
                outputs[f"output {number}"] = made
                text += f"{{{{ output {number} }}}}\n\n"
    return text, outputs, tuple(cells)


def summary(path: Path) -> str:
    """What search engines show of a lab: the paragraph below its heading, in plain text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    below = "".join(cells[0]["source"]).partition("\n")[2].strip() if cells else ""
    return MARKUP.sub("", below.partition("\n\n")[0]).replace("\n", " ")
