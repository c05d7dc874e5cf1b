"""Every check of sources: a function of the project's root that returns its problems.

A problem reads "file:line: what is wrong. how to mend it". The build runs those of `SITE`, without which a page would
come out wrong, and stops at them; the tests run all.
"""

import re
from pathlib import Path

from theme.page import breakages, claims, code, equations, exercises, front, hosts, lengths, numbers, pictures, symbols
from theme.page.numbers import prose
from theme.page.pages import posts
from theme.page.source import blank, line_of, place

TEXTS = {".md", ".py", ".ipynb", ".json", ".yml", ".css", ".js", ".html", ".txt", ".toml"}
UNFINISHED = re.compile("TO" + r"DO[(:]|\{TO" + "DO,")
GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff]+")
ALTERNATIVE = re.compile(r"!\[[^\]]*\]")
MIXED = re.compile("[A-Za-z][\u0370-\u03ff\u0400-\u052f]|[\u0370-\u03ff\u0400-\u052f][A-Za-z]")


def texts(root: Path, *folders: str) -> list[tuple[Path, bytes]]:
    """The text files below some folders."""
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*"))]
    return [(path, path.read_bytes()) for path in paths if path.suffix in TEXTS and path.is_file()]


def unfinished(root: Path) -> list[str]:
    """Lines that a template left to be written."""
    problems = []
    for path, data in texts(root, "docs", "snippets", "tests"):
        for number, line in enumerate(data.decode().split("\n"), 1):
            if UNFINISHED.search(line):
                todo = line.strip().strip('",').removesuffix("\\n")
                problems.append(f"{place(path, root, number)}: {todo!r} is left. Write what it asks for")
    return problems


def characters(root: Path) -> list[str]:
    """Line ends of Windows, which shift lines and sections; letters of two alphabets in one word (ruff has code)."""
    problems = []
    for path, data in texts(root, "docs", "snippets", "tests", "theme", "tools"):
        here, text = place(path, root, data[: data.find(b"\r\n")].count(b"\n") + 1), data.decode()
        if b"\r\n" in data:
            problems.append(f"{here}: the line ends with CR and LF. Save the file with LF alone, as Unix does")
        if path.suffix == ".md" and (found := MIXED.search(text)):
            here, name = place(path, root, text.count("\n", 0, found.start()) + 1), f"U+{max(map(ord, found[0])):04X}"
            problems.append(f"{here}: {found[0]!r} mixes alphabets ({name}). Type the letter on a Latin keyboard")
    return problems


def greek(root: Path) -> list[str]:
    """Greek letters in prose, where accents and alphabets look alike; alternative texts may have them."""
    problems = []
    for page in posts(root):
        for match in GREEK.finditer(blank(ALTERNATIVE, prose(page.text))):
            here = place(page.path, root, page.first_line + line_of(page.text, match.start()) - 1)
            problems.append(f"{here}: {match[0]} stands outside of a formula. Write it as maths, say $\\sigma^2$")
    return problems


SITE = {
    "front matter": front.front_matter,
    "sections are opened once and closed": lambda root: code.sections(root)[1],
    "fences hold code that is run": code.fences,
    "includes": code.includes,
    "every python block runs": code.unseen_blocks,
    "exercises are complete and on their page": exercises.problems,
    "faults stand in the page's code": breakages.problems,
    "formulas and labels are written as they must be": equations.written,
    "claims have ids": claims.written,
    "pictures are there and have alternative text": pictures.problems,
}
CHECKS = SITE | {
    "no other host is asked": lambda root: hosts.third_party([root / "docs", root / "theme"], root),
    "numbered equations have tests": equations.tested,
    "claims have tests": claims.tested,
    "numbers come from runs": numbers.typed_numbers,
    "percent signs": numbers.percent_signs,
    "results are recorded": numbers.hearsay,
    "pages are short enough": lengths.problems,
    "line ends and letters": characters,
    "Greek letters are maths": greek,
    "symbols are explained": symbols.problems,
    "nothing is left to be written": unfinished,
}
