"""Pictures: size from the file, a dark version where one stands beside it."""

import re
import struct
from pathlib import Path

from theme.page.source import once_per_version

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
