"""Exercises and breakages of a page, counted in its source."""

import re

from theme.page.pages import Page
from theme.page.source import TOKEN


def exercises(page: Page) -> list[str]:
    """The sections of the exercises that the page includes."""
    names = (section for path, section in page.includes if path.startswith("snippets/exercises/"))
    return sorted({name for name in names if re.fullmatch(r"exercise-\d+", name)})


def breakages(page: Page) -> int:
    """How many one-line faults the page shows, each a fence that opens with ```diff."""
    return sum((match["info"] or "").startswith("diff") for match in TOKEN.finditer(page.text))
