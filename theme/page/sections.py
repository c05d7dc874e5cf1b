"""Sections of modules, which pages include: the lines between a mark that starts one and a mark that ends it."""

import re
import textwrap
from pathlib import Path

from theme.page.source import SourceError, once_per_version

MARK = re.compile(r"\s*# --8<-- \[(start|end):([a-z][a-z0-9-]*)\]")


@once_per_version
def marked(path: Path) -> tuple[dict[str, tuple[int, int]], list[tuple[int, str]]]:
    """Lines of each section of a module by its name, and problems, each with its line."""
    found, opened, problems = {}, {}, []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        mark = MARK.fullmatch(line)
        if mark is None:
            if "8<" in line:
                mend = "A mark has its line to itself: # --8<-- [start:name]"
                problems.append((number, f"{line.strip()!r} is no mark of a section. {mend}"))
            continue
        kind, section = mark.groups()
        if kind == "start" and (section in opened or section in found):
            problems.append((number, f"section {section} begins twice. Give the second another name"))
        elif kind == "start":
            opened[section] = number
        elif section not in opened:
            mend = f"Add # --8<-- [start:{section}] above it"
            problems.append((number, f"section {section} ends here but never began. {mend}"))
        else:
            found[section] = opened.pop(section), number
    for section, number in opened.items():
        mend = f"Add # --8<-- [end:{section}]"
        problems.append((number, f"section {section} is never closed. {mend}"))
        found[section] = number, number
    return found, problems


@once_per_version
def texts(path: Path) -> dict[str, str]:
    """The text of each section of a module by its name, without indentation in common and without marks in it."""
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = {name: lines[first : last - 1] for name, (first, last) in marked(path)[0].items()}
    return {
        name: textwrap.dedent("\n".join(line for line in section if not MARK.fullmatch(line)))
        for name, section in whole.items()
    }


def text(path: Path, section: str) -> str:
    """The text of one section; SourceError where there is none."""
    found = texts(path).get(section) if path.is_file() else None
    if found is None:
        raise SourceError(f"{path}: there is no section {section}. Mark it in the module, or include another")
    return found
