"""Pictures: size from the file, a dark version beside it, and what is wrong with one that a page shows."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from theme.page.pages import key_line, posts
from theme.page.source import CODE, FENCE, blank, line_of, once_per_version, place

UNITS = {"": 1, "px": 1, "pt": 96 / 72, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4}
LENGTH = re.compile(r"([\d.]+)(px|pt|in|cm|mm|)")


def measure(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of a PNG or SVG picture in CSS pixels; ValueError for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return struct.unpack(">II", data[16:24])
    tag = re.search(r"<svg\b[^>]*>", data[:10_000].decode("utf-8", "replace"))
    if not tag:
        raise ValueError(f"{name} is neither a PNG nor an SVG file")
    found = dict(re.findall(r'\b(width|height|viewBox)="([^"]*)"', tag[0]))
    lengths = [LENGTH.fullmatch(found.get(name, "")) for name in ("width", "height")]
    if all(lengths):
        width, height = (round(float(length[1]) * UNITS[length[2]]) for length in lengths)
    elif "viewBox" in found:
        width, height = (round(float(number)) for number in found["viewBox"].replace(",", " ").split()[2:])
    else:
        raise ValueError(f"{name} has neither width and height nor a viewBox")
    return width, height


@once_per_version
def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture's file."""
    return measure(path.read_bytes(), path.name)


def dark_version(path: Path) -> Path | None:
    """loss.dark.svg beside loss.svg, if there is one."""
    dark = path.with_name(f"{path.stem}.dark{path.suffix}")
    return dark if dark.is_file() else None


def attributes(path: Path) -> dict[str, str]:
    """What every picture's element carries."""
    width, height = size(path)
    return {"width": str(width), "height": str(height), "loading": "lazy", "decoding": "async"}


ALONE = {"class": "alone", "title": "Open the picture alone"}  # the link around each picture

IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\s*(?:\[|\(\s*<?(?P<address>[^)\s>]*))")
IMG = re.compile(r"<img\b[^>]*>", re.S | re.I)
SAY = "Say in a sentence what it shows"
NO_ALT = f"the picture has no alternative text. {SAY}"
ALT = re.compile(r"\balt\s*=\s*(\\?[\"'])(?P<text>.*?)\1", re.S | re.I)


BUDGET = 200 * 1024  # bytes of a picture


def problems(root: Path) -> list[str]:
    """Pictures that are not there, too heavy, of another site, or without alternative text."""
    found = []
    for path in [*sorted((root / "docs").rglob("*.md")), *sorted((root / "theme").rglob("*.html"))]:
        text = blank(CODE, blank(FENCE, path.read_text(encoding="utf-8")))
        for match in IMAGE.finditer(text) if path.suffix == ".md" else ():
            here = place(path, root, line_of(text, match.start()))
            found += [f"{here}: {wrong}" for wrong in _wrong(path, match["address"], match["alt"], root)]
        for match in IMG.finditer(text):
            if not _alt(match[0]):
                found.append(f"{place(path, root, line_of(text, match.start()))}: {NO_ALT}")
    for page in posts(root):
        picture = page.meta.get("picture")
        if isinstance(picture, dict) and not str(picture.get("alt") or "").strip():
            found.append(f"{key_line(page, root, 'picture')}: the card's picture has no alternative text. {SAY}")
    for path in sorted((root / "docs/figures").rglob("*")):
        if path.is_file() and path.stat().st_size > BUDGET:
            weight = f"{path.stat().st_size / 1024:.0f} KiB, more than {BUDGET // 1024}"
            found.append(f"{place(path, root, 1)}: the picture weighs {weight}. Draw fewer points or pixels")
    for path in sorted((root / "docs/labs").rglob("*.ipynb")):
        found += notebook_pictures(path, root)
    return found


def _alt(element: str) -> str:
    found = ALT.search(element)
    return found["text"].strip() if found else ""


def _wrong(page: Path, address: str, alt: str, root: Path) -> Iterator[str]:
    if not alt.strip():
        yield NO_ALT
    path = page.parent / unquote(address)
    if urlsplit(address).scheme or address.startswith("/"):
        yield f"the picture {address} is not of this site. Put it below docs/figures"
    elif not path.is_file():
        yield f"there is no {_name(path, root)}. Draw it in the lab, or correct the path"
    else:
        try:
            size(path)
        except ValueError as error:
            yield f"{error}. Draw it as one of the two"


def _name(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def notebook_pictures(path: Path, root: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = [line_of(text, match.start()) for match in re.finditer(r'^\s*"cell_type":', text, re.M)]
    for number, cell in enumerate(json.loads(text)["cells"]):
        source, here = "".join(cell["source"]), place(path, root, lines[number] if number < len(lines) else 1)
        if cell["cell_type"] == "markdown":
            source = blank(CODE, blank(FENCE, source))
            alts = [m["alt"].strip() for m in IMAGE.finditer(source)] + [_alt(m[0]) for m in IMG.finditer(source)]
            if not all(alts):
                yield f"{here}: a picture of this cell has no alternative text. {SAY}"
        for output in cell.get("outputs", []):
            for kind in (kind for kind in output.get("data", {}) if kind.startswith("image/")):
                metadata = output.get("metadata", {})
                if not (metadata.get(kind, {}).get("alt") or metadata.get("alt") or cell["metadata"].get("alt")):
                    mend = 'Give the cell one in its metadata: "alt": "what it shows"'
                    yield f"{here}: the picture that this cell draws has no alternative text. {mend}"
