"""Words of the text that become something more: a link to what they name, or an abbreviation that says what it is."""

import re
import xml.etree.ElementTree as etree
from collections.abc import Callable, Iterator

UNTOUCHED = {"a", "abbr", "code", "pre", "h1", "h2", "h3", "h4", "script", "style", "summary"}
Make = Callable[[re.Match], etree.Element | None]  # the element that takes the place of a match; None leaves it


def replace(element: etree.Element, pattern: re.Pattern, make: Make) -> None:
    """Put elements in place of words, in the order of the text, outside of links, code and headings."""
    if element.tag in UNTOUCHED:
        return
    children = list(element)
    element.text, *made = _parts(element.text or "", pattern, make)
    for child in reversed(made):
        element.insert(0, child)
    for child in children:
        replace(child, pattern, make)
        child.tail, *made = _parts(child.tail or "", pattern, make)
        at = list(element).index(child) + 1
        element[at:at] = made


def _parts(text: str, pattern: re.Pattern, make: Make) -> Iterator:
    """The text before the first element, then each element, whose tail is the text up to the next."""
    found = [(match, made) for match in pattern.finditer(text) if (made := make(match)) is not None]
    yield text[: found[0][0].start()] if found else text
    ends = [match.start() for match, _ in found[1:]] + [None]
    for (match, made), end in zip(found, ends[: len(found)], strict=True):
        made.text, made.tail = match[0], text[match.end() : end]
        yield made
