"""Texts that metrics trip over, and a comparison of two metrics on a thousand and more of them."""

import random
import unicodedata
from collections.abc import Callable

import regex
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.shapes import unwatched

CASES = 1000
PIECES = """the The cat cat. sat on mat 3.5 1,000 - -- 5-3 a-b (hi) don't ... .5 5. 1999. &amp; &quot; &lt; &amp;lt;
<skipped> é ß İ 中 文 《 ” € — カ ½ ٣ x running runs connection x-ray !? ?! . , ; a a a""".split()
PIECES += ["", "\n", "-\n", "\t", "\u2028", "\U00020010", "\U0001f600", "e\u0301"]


def plain(letter: str) -> bool:
    """Whether both sides know the character: `regex` and Python may have different versions of Unicode."""
    kind = unicodedata.category(letter)[0]
    return kind != "C" and all(bool(regex.match(rf"\p{{{one}}}", letter)) == (kind == one) for one in "NPS")


ASCII = [chr(point) for point in range(32, 127)]
LETTERS = list(filter(plain, map(chr, random.Random(0).sample(range(0x20000), 2000))))


def text(source: random.Random, most: int = 9) -> str:
    """Words, numbers, marks, escapes, letters of any script, glued or apart; also nothing."""
    pieces = source.choices(PIECES, k=source.randint(0, most))
    for at in range(len(pieces)):
        if source.random() < 0.2:
            pieces[at] = "".join(source.choices(source.choice((ASCII, LETTERS)), k=source.randint(1, 4)))
    return source.choice((" ", " ", "", "\n")).join(pieces)


def pair(source: random.Random) -> tuple[str, str]:
    """Two unrelated texts, the same text twice, or two texts of a few words that repeat."""
    kind, first = source.randrange(3), text(source)
    if kind < 2:
        return first, (text(source) if kind else first)
    words = "a a b b c running runs run The the é . ".split(" ")
    return tuple(" ".join(source.choices(words, k=source.randint(0, 14))) for _ in range(2))


def corpus(source: random.Random) -> tuple[list[str], list[list[str]]]:
    """One to three candidates with one to three references each, as many for all."""
    rows, more = [pair(source) for _ in range(source.randint(1, 3))], source.randint(0, 2)
    return [row[0] for row in rows], [[row[1], *(text(source) for _ in range(more))] for row in rows]


def compare(make: Callable, ours, theirs, agrees, oracle: str, tolerance: float = 1e-9, cases: int = CASES) -> None:
    """Assert that two functions agree on so many cases that make(source) gives, and note it for the oracle."""
    values, seen = ([], []), set()

    def check(seed):
        case = make(random.Random(seed))
        found = [list(one) if isinstance(one, tuple | list) else [one] for one in (ours(*case), theirs(*case))]
        assert all(abs(a - b) <= tolerance for a, b in zip(*found, strict=True)), f"{case!r}: {found}"
        values[0].extend(found[0]), values[1].extend(found[1]), seen.add(seed)

    def many(count):
        settings(max_examples=count, phases=[Phase.generate], deadline=None)(given(st.integers(0, 1 << 40))(check))()

    many(20)  # here it is seen whose code runs; that makes all code slow
    with unwatched():
        many(cases + 30)
    assert len(seen) >= cases, f"{len(seen)} cases"
    agrees(*values, oracle, tolerance)


def streams(references: list[list[str]]) -> list[list[str]]:
    """References as sacreBLEU wants them: a list for each place, not for each candidate."""
    return [list(column) for column in zip(*references, strict=True)]
