"""Claims about results: {{ claim: name }} at the end of a sentence, @pytest.mark.claim("name") on its test."""

import re
from pathlib import Path

from theme.page import marks
from theme.page.marks import Mark
from theme.page.pages import Page, posts
from theme.page.source import CODE, FENCE, blank, line_of

CLAIM = re.compile(r"\{\{\s*claim:\s*(?P<id>[^}]*?)\s*\}\}")


def claims(pages: list[Page], root: Path) -> list[Mark]:
    """The claims of all posts, in order."""
    found = []
    for page in pages:
        text, path = blank(CODE, blank(FENCE, page.text)), page.path.relative_to(root).as_posix()
        for number, match in enumerate(CLAIM.finditer(text), 1):
            found.append(Mark(match["id"], number, path, page.first_line + line_of(text, match.start()) - 1))
    return found


def written(root: Path) -> list[str]:
    """Claims whose ids are none, or stand twice."""
    return marks.wrong_ids(claims(posts(root), root), "claim")


def tested(root: Path) -> list[str]:
    """Claims without a test, and tests' markers without a claim."""
    write = "{{ claim: … }} behind the sentence"
    return marks.without_partner(claims(posts(root), root), root, "claim", write)
