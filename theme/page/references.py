"""References from a page's BibTeX: a list with links, the block itself folded, and mentions in the text as links."""

import html
import re
import unicodedata
import xml.etree.ElementTree as etree
from dataclasses import dataclass

from markdown.treeprocessors import Treeprocessor

from theme.page import words
from theme.page.source import Source

FENCE = re.compile(r"^```bibtex\n(.*?)^```$", re.S | re.M)
ENTRY = re.compile(r"^@\w+\{(?P<key>[^,\s]+),\n(?P<body>.*?)^\}", re.S | re.M)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*?)\},?\s*$", re.M | re.S)
ACCENT = re.compile(r"\{\\(['`\"^~=.cvH])\{?(\\?\w)\}?\}|\\(['`\"^~=.])\{?(\w)\}?")
COMBINING = dict(zip("'`\"^~=.cvH", "\u0301\u0300\u0308\u0302\u0303\u0304\u0307\u0327\u030c\u030b", strict=True))
LISTED = re.compile(
    r"^- (?P<family>[^:,\n]+?)(?:,[^:\n]*| and [^:\n]*)?: \[[^\]]+\]\((?P<url>http[^)]+)\), (?P<year>\d{4})", re.M
)
TYPED = re.compile(r"^## References\n(?:(?!^## ).*\n)*?- ", re.M)
MANY = 4  # authors, of whom the first is named alone


@dataclass(frozen=True)
class Reference:
    """One entry: family names of its authors, its title, where it appeared, the year, and its address or ""."""

    key: str
    families: tuple[str, ...]
    title: str
    venue: str
    year: str
    address: str

    @property
    def authors(self) -> str:
        """As a sentence names them."""
        *others, last = self.families
        if len(self.families) > MANY or last == "others":
            return f"{self.families[0]} and others"
        return f"{', '.join(others)} and {last}" if others else last


def plain(text: str) -> str:
    """A BibTeX text without braces and commands."""
    text = ACCENT.sub(lambda m: f"{m[2] or m[4]}{COMBINING[m[1] or m[3]]}".replace("\\", ""), text)
    text = re.sub(r"[{}]|\\(?=\W)", "", text).replace("--", "\N{EN DASH}").replace("~", " ")
    return unicodedata.normalize("NFC", " ".join(text.split()))


def address(fields: dict[str, str]) -> str:
    """Where the paper is: its url, doi, or page at arXiv."""
    arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5}|[\w-]+/\d{7})", " ".join(fields.values()))
    if fields.get("url"):
        return fields["url"]
    if fields.get("doi"):
        return f"https://doi.org/{fields['doi']}"
    return f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else ""


def references(text: str) -> list[Reference]:
    """The entries of BibTeX, in order."""
    found = []
    for entry in ENTRY.finditer(text):
        fields = dict(FIELD.findall(entry["body"]))
        names = [plain(name) for name in fields.get("author", "").split(" and ")]
        families = tuple(name.partition(",")[0] if "," in name else name for name in names)
        venue = next((plain(fields[one]) for one in ("journal", "booktitle", "howpublished") if one in fields), "")
        title = plain(fields.get("title", entry["key"]))
        found.append(Reference(entry["key"], families, title, venue, fields.get("year", ""), address(fields)))
    return found


def of_page(text: str) -> list[Reference]:
    """The entries of all BibTeX blocks of a page."""
    return [one for fence in FENCE.finditer(text) for one in references(fence[1])]


def item(one: Reference) -> str:
    """A reference as HTML."""
    title = html.escape(one.title, quote=False)
    title = f'<a href="{html.escape(one.address)}">{title}</a>' if one.address else f"<em>{title}</em>"
    venue = f", {html.escape(one.venue, quote=False)}" if one.venue else ""
    return f'<li id="ref-{one.key}">{html.escape(one.authors, quote=False)}: {title}{venue}, {one.year}</li>'


def folded(block: str, summary: str) -> str:
    """A block of BibTeX, folded."""
    return f'<details class="fold"><summary>{summary}</summary>{block}</details>'


def bibtex_fence(source: Source):
    """Formatter of BibTeX fences: the list, where the page has not typed one, and the block to copy, folded."""

    def format_fence(src, language, options, md, **kwargs):
        block = (
            f'<div class="language-bibtex highlight"><pre><code>{html.escape(src, quote=False)}\n</code></pre></div>'
        )
        items = "" if TYPED.search(source.text) else "".join(map(item, references(src + "\n")))
        return (f"<ul>{items}</ul>" if items else "") + folded(block, "BibTeX")

    return format_fence


class Mentions(Treeprocessor):
    """A paper that the text names by author and year becomes a link to it."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Link every mention outside of links, code and headings."""
        known: dict[tuple[str, str], set[str]] = {}
        for one in of_page(self.source.text):
            known.setdefault((one.families[0], one.year), set()).add(one.address)
        for one in LISTED.finditer(self.source.text):
            known.setdefault((one["family"], one["year"]), set()).add(one["url"])
        addresses = {who: next(iter(found)) for who, found in known.items() if len(found) == 1 and "" not in found}
        if addresses:
            families = "|".join(sorted({re.escape(family) for family, _ in addresses}, key=len, reverse=True))
            name = r"(?:d[ei] |v[ao]n (?:de[rn]? )?)?[A-Z][\w'-]+(?: [A-Z][\w'-]+)*"
            others = rf"(?:(?:, {name})*,? (?:and (?:others|{name})|et al\.))?"
            pattern = re.compile(rf"\b(?P<who>{families}){others},? \(?(?P<year>\d{{4}})\b")
            words.replace(root, pattern, lambda match: self._link(addresses.get((match["who"], match["year"]))))

    def _link(self, address: str | None) -> etree.Element | None:
        return etree.Element("a", {"class": "cited", "href": address}) if address else None
