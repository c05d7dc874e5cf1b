"""A post as a notebook: its prose in Markdown that any notebook shows, its code as the cells of one program."""

import base64
import posixpath
import re
from pathlib import Path

from theme.page import results, survey
from theme.page.claims import CLAIM
from theme.page.equations import LABEL
from theme.page.exercises import without_hint
from theme.page.live import LIVE
from theme.page.marks import Mark
from theme.page.pages import ASIDES, PYTHON_FENCE, Page, expand, python_blocks
from theme.page.source import TOKEN

HELD = re.compile("\ue000([0-9]+)\ue001")
CAPTION = re.compile(r"^/// caption\n(.*?)\n///$", re.M | re.S)
ATTRIBUTES = re.compile(r"(?<=\))\{[^}\n]*\}|[ ]*\{:?[ ]*[.#][^}\n]*\}")
NOTE = re.compile(r'^(?:!!!|\?\?\?\+?) \w+(?: "(?P<title>[^"]*)")?\n(?P<body>(?:(?:    .*)?\n)*)', re.M)
EQUATION_LINK = re.compile(r"\[\]\([^)#]*#eq-([^)]+)\)")
PICTURE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>[^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?!\w+:|#)(?P<path>[^)\s]+)\)")


def _note(match) -> str:
    body = re.sub(r"^    ", "", match["body"], flags=re.M).strip()
    text = f"**{match['title']}**\n\n{body}" if match["title"] else body
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n")) + "\n\n"


def _code(info: str, body: str, root: Path) -> str:
    """A fence whose code is no part of the program, as any notebook shows it."""
    language, _, kind = info.partition(" ")
    if language == "diff":
        return f"```diff\n{body}```\n\nCaught by the test `{kind.rpartition('::')[2]}`."
    if kind not in ASIDES:
        return f"```{info}\n{body}```"
    code, hint = without_hint(expand(body, root).rstrip("\n"))
    code = f"```python\n{code}\n```"
    if kind != "solution":
        return code
    folds = (("Hint", hint), ("Solution", code))
    return "\n\n".join(f"<details><summary>{name}</summary>\n\n{text}\n\n</details>" for name, text in folds)


def _prose(text: str, post: Page, root: Path, known: dict, site_url: str) -> tuple[str, dict]:
    """Markdown without the site's own notations, and the pictures that it shows."""
    held, pictures = [], {}

    def hold(match) -> str:
        if match["braces"] is not None and match["braces"].strip() in ("program", "timeline"):
            return ""  # in a notebook, the reader's own run prints it; a picture without its styles is black
        if match["braces"] is not None and match["braces"].strip() == "models":
            held.append(survey.table(survey.read(survey.path_of(post))))
            return f"\ue000{len(held) - 1}\ue001"
        if match["braces"] is not None:
            return (
                "" if CLAIM.fullmatch(match[0]) or LIVE.fullmatch(match[0]) else results.value(root, match["braces"])[0]
            )
        if match["alt"] is not None:
            return match[0]
        code = _code(match["info"], match["body"], root) if match["mark"] else None
        held.append(code or LABEL.sub(lambda label: f"\\tag{{{known[label[1]].number}}}", match[0]))
        return f"\ue000{len(held) - 1}\ue001"

    def attach(match) -> str:
        path = post.path.parent / match["path"]
        kind = "image/svg+xml" if path.suffix == ".svg" else "image/png"
        pictures[path.name] = {kind: base64.b64encode(path.read_bytes()).decode()}
        alt = TOKEN.sub(hold, match["alt"])
        return f"![{alt}](attachment:{path.name})"

    def absolute(match) -> str:
        if not site_url:
            return match["text"]
        path, _, anchor = match["path"].partition("#")
        target = posixpath.normpath(posixpath.join("posts", posixpath.dirname(post.key), path))
        address = re.sub(r"(index)?\.(md|ipynb)$", "/", target)
        return f"[{match['text']}]({site_url.rstrip('/')}/{address}{'#' + anchor if anchor else ''})"

    text = TOKEN.sub(hold, text)
    text = ATTRIBUTES.sub("", CAPTION.sub(r"*\1*", text))
    text = EQUATION_LINK.sub(lambda match: f"equation ({known[match[1]].number})", NOTE.sub(_note, text))
    text = PICTURE.sub(attach, LINK.sub(absolute, text))
    return HELD.sub(lambda match: held[int(match[1])], text).strip("\n"), pictures


def notebook(post: Page, root: Path, known: dict[str, Mark], site_url: str = "") -> dict:
    """The post as a notebook, known equations by id; its code cells, put together, are `program`."""
    cells, start, blocks = [], 0, python_blocks(post, root)

    def add_prose(text: str) -> None:
        prose, pictures = _prose(text, post, root, known, site_url)
        if prose:
            attached = {"attachments": pictures} if pictures else {}
            cells.append({"cell_type": "markdown", "metadata": {}, "source": prose, **attached})

    for match in TOKEN.finditer(post.text):
        if match["mark"] and PYTHON_FENCE.match("```" + match["info"]):
            add_prose(post.text[start : match.start()])
            code = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
            cells.append(code | {"source": blocks.pop(0).rstrip("\n")})
            start = match.end()
    add_prose(post.text[start:])
    if not post.text.lstrip().startswith("# "):
        cells.insert(0, {"cell_type": "markdown", "metadata": {}, "source": f"# {post.meta['title']}"})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
