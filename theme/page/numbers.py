"""Numbers in prose come from runs: what is typed there although a lab measured it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from theme.page.pages import posts
from theme.page.source import CODE, FENCE, blank, place

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
        if isinstance(values, dict) and values.keys() == {"mean", "sd", "seeds"}:
            values = {"mean": values["mean"]}  # the others are quoted with it, or not at all
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
    if percent:  # a result with a percent sign is a share, which the format multiplies
        return f".{decimals}%" if f"{value:.{decimals}%}" == f"{plain}%" else None
    if f"{value:.{decimals}f}" != plain:
        return None
    return comma if decimals == 0 and value == int(value) else f"{comma}.{decimals}f"


def near(match: re.Match, value: float) -> bool:
    """Whether a typed number differs from a result in its last digit only; from four digits on, in its last two."""
    plain = match["number"].replace(",", "")
    digits = plain.replace(".", "").lstrip("0")
    if "e" in plain or len(digits) < 3 or ("." not in plain and not match["percent"] and len(digits) < 5):
        return False
    shift = 10 ** (len(plain.partition(".")[2]) + (2 if match["percent"] else 0))
    measured, last = str(round(value * shift)), 1 if len(digits) == 3 else 2
    return measured != digits and len(measured) == len(digits) and measured[:-last] == digits[:-last]


PERCENT = re.compile(r"\{\{[^}|]*\|\s*[^}%|]*\}\}\s?%")


def percent_signs(root: Path) -> list[str]:
    """Percent signs behind a result that is not formatted as a percentage."""
    problems = []
    for page in posts(root):
        for match in PERCENT.finditer(blank(FENCE, page.text)):
            here = place(page.path, root, page.first_line + page.text.count("\n", 0, match.start()))
            mend = "Record the share and let the format multiply, as in {{ X: share | .1% }}"
            problems.append(f"{here}: {match[0]} puts a percent sign behind a number that is none. {mend}")
    return problems


HEARSAY = re.compile(r"\b(?:[Ii]n (?:(?:a|our|earlier|other|some) )?trials?|before the lab)\b")


def hearsay(root: Path) -> list[str]:
    """Results that a sentence quotes although no lab recorded them."""
    problems = []
    for page in posts(root):
        for match in HEARSAY.finditer(prose(page.text)):
            here = place(page.path, root, page.first_line + page.text.count("\n", 0, match.start()))
            problems.append(f"{here}: {match[0]!r} quotes what no lab recorded. Record it in the lab, or leave it out")
    return problems


def typed_numbers(root: Path) -> list[str]:
    """Numbers typed in prose that are in the page's results."""
    problems = []
    for page in posts(root):
        results = root / "docs/results" / f"{page.key}.json"
        if not results.is_file():
            continue
        run = json.loads(results.read_text(encoding="utf-8"))
        values = list(numbers(run["values"] | {"timings": run.get("timings", {})}))
        for match in NUMBER.finditer(prose(page.text)):
            here = place(page.path, root, page.first_line + page.text.count("\n", 0, match.start()))
            found = next(((path, form) for path, value in values if (form := spec(match, value)) is not None), None)
            close = next((one for one in values if near(match, one[1])), None)
            if found is not None:
                form = f" | {found[1]}" if found[1] else ""
                mend = f"Write {{{{ {page.key}: {found[0]}{form} }}}}"
                problems.append(f"{here}: {match[0]} is typed by hand, but is a result. {mend}; {CONSTANT}")
            elif close is not None:
                mend = f"If it is meant, write {{{{ {page.key}: {close[0]} | … }}}}"
                wrong = f"{match[0]} is typed by hand, and nearly the result {close[0]}, {close[1]:.6g}"
                problems.append(f"{here}: {wrong}. {mend}; {CONSTANT}")
    return problems
