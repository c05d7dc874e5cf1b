"""The list of symbols of a page: each letter of its formulas stands in it, and no other."""

import re
from pathlib import Path

from theme.page.equations import LABEL
from theme.page.pages import posts
from theme.page.source import TOKEN, line_of, place

LIST = re.compile(r'^\?\?\? note "Symbols[^\n]*"\n(?:(?: {4}[^\n]*)?\n)+', re.M)
FEW = 10  # letters that a page explains without a list
WORDS = re.compile(r"\\(?:begin|end|mathrm|mathtt|operatorname|text|textbf|textrm)\*?\{[^{}]*\}")
GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi"
    " chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell nabla"
).split()
LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")  # a command, or a letter
KNOWN = {"e"}  # and pi, which is not among the Greek letters above: numbers that need no explanation


def letters(text: str) -> dict[str, int]:
    """The letters of a text's formulas, each with the place of the first formula that has it."""
    found: dict[str, int] = {}
    for formula in TOKEN.finditer(text):
        if text[: formula.start()].endswith("-"):
            continue  # a letter of a name, as in PixArt-$\alpha$
        tex = WORDS.sub(" ", LABEL.sub("", formula["display"] or formula["inline"] or ""))
        for letter in LETTER.findall(tex):
            if len(letter) == 1 or letter[1:] in GREEK:
                found.setdefault(letter, formula.start())
    return {letter: at for letter, at in found.items() if letter not in KNOWN}


def problems(root: Path) -> list[str]:
    """Pages without a list of symbols, and letters that a list lacks or has for nothing."""
    found = []
    for page in posts(root):
        listed = LIST.search(page.text)
        rest = LIST.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), page.text)
        used = letters(rest)
        if not listed:
            if len(used) > FEW:
                mend = 'Add ??? note "Symbols" with a table, as docs/posts/Diffusion.md has it'
                given = f"{len(used)} letters stand in formulas, and no list says what they are"
                found.append(f"{place(page.path, root, page.first_line)}: {given}. {mend}")
            continue
        explained = letters(listed[0])
        for letter in sorted(used.keys() - explained.keys()):
            here = place(page.path, root, page.first_line + line_of(rest, used[letter]) - 1)
            found.append(f"{here}: the list of symbols lacks {letter}. Add a row that says what it is")
        for letter in sorted(explained.keys() - used.keys()):
            here = place(page.path, root, page.first_line + line_of(page.text, listed.start()) - 1)
            found.append(f"{here}: the list of symbols has {letter}, which no formula has. Take it out")
    return found
