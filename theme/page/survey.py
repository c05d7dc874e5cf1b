"""The survey of text-to-image models: its table and its BibTeX file are made from one data file beside the post.

`docs/posts/TextToImage.yml` holds one entry a model. `{{ models }}` on a line of its own of `TextToImage.md` is the
table, and `models.bib` beside the page has the references.
"""

import html
import re
from pathlib import Path

import yaml

from theme.page.pages import Page
from theme.page.source import SourceError, once_per_version

FAMILIES = (
    "recurrent",
    "GAN",
    "autoregressive",
    "masked",
    "pixel diffusion",
    "latent diffusion",
    "flow",
    "few steps",
    "unified",
)
NEEDED = {"model", "month", "family", "title", "author", "new"}
ALLOWED = NEEDED | {"arxiv", "address", "size", "data"}
COLUMNS = ("Year", "Model", "Family", "Parameters", "Trained on", "What was new")


def path_of(post: Page) -> Path | None:
    """The data file of a post that has one."""
    path = post.path.with_suffix(".yml")
    return path if path.is_file() else None


@once_per_version
def read(path: Path) -> list[dict]:
    """The entries, in the file's order; SourceError with the line of what is wrong."""
    text = path.read_text(encoding="utf-8")
    lines = [text.count("\n", 0, m.start()) + 1 for m in re.finditer(r"^- ", text, re.M)]
    rows = yaml.safe_load(text)
    before, seen = "", set()
    for row, line in zip(rows, lines, strict=True):
        wrong = _wrong(row, before)
        for name in ("model", "arxiv", "address", "title"):
            if (name, row.get(name)) in seen:
                wrong = wrong or f"{name} {row[name]} is there twice"
            if name in row:
                seen.add((name, row[name]))
        if wrong:
            raise SourceError(f"{path.name}:{line}: {row.get('model')}: {wrong}")
        before = row["month"]
    return rows


def _wrong(row: dict, before: str) -> str:
    """What is wrong with an entry that follows one of the month before; "" if nothing is."""
    if missing := NEEDED - row.keys():
        return f"{', '.join(sorted(missing))} is missing"
    if unknown := row.keys() - ALLOWED:
        return f"no key {', '.join(sorted(unknown))} is known"
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", row["month"]):
        return f"a month such as 2015-11 is expected, given {row['month']}"
    if row["month"] < before:
        return f"entries stand in order of their months, {row['month']} after {before}"
    if row["family"] not in FAMILIES:
        return f"a family out of {', '.join(FAMILIES)} is expected, given {row['family']}"
    if ("arxiv" in row) == ("address" in row):
        return "either the id of arXiv or another address is expected"
    if "arxiv" in row and not re.fullmatch(r"\d{4}\.\d{5}", row["arxiv"]):
        return f"an id of arXiv such as 1511.02793 is expected, given {row['arxiv']}"
    if "arxiv" in row and row["arxiv"][:4] != row["month"][2:].replace("-", ""):
        return f"the id {row['arxiv']} is not of the month {row['month']}"
    return ""


def address(row: dict) -> str:
    """Where the paper can be read."""
    return row.get("address") or f"https://arxiv.org/abs/{row['arxiv']}"


def table(rows: list[dict]) -> str:
    """The entries as an HTML table, whole without scripts; models.js lets readers sort and filter it."""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = ""
    for row in rows:
        row = {name: html.escape(str(value)) for name, value in row.items()}
        paper = f'<a href="{address(row)}" title="{row["title"]}">{row["model"]}</a>'
        cells = [row["month"], paper, row["family"], row.get("size", "&ndash;"), row.get("data", "&ndash;"), row["new"]]
        body += f'<tr data-family="{row["family"]}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
    return f'<table class="models"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>'


def bibtex(rows: list[dict]) -> str:
    """The entries as BibTeX, in the same order."""
    entries = []
    for row in rows:
        key = re.sub(r"\W", "", row["author"].split(",")[0].split()[0]) + row["month"][:4]
        key += re.sub(r"[^A-Za-z0-9]", "", row["model"])
        author = row["author"] if "," in row["author"] else "{" + row["author"] + "}"
        fields = {"title": "{" + row["title"] + "}", "author": f"{author} and others", "year": row["month"][:4]}
        if "arxiv" in row:
            fields |= {"eprint": row["arxiv"], "archivePrefix": "arXiv"}
        fields["url"] = address(row)
        inside = ",\n".join(f"  {name} = {{{_escaped(value)}}}" for name, value in fields.items())
        entries.append(f"@misc{{{key},\n{inside}\n}}")
    return "\n\n".join(entries) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", r"\&") if "http" not in text else text


def timeline(rows: list[dict]) -> str:
    """A picture of the entries: time to the right, a lane for each family, a mark for each model."""
    first, last = int(rows[0]["month"][:4]), int(rows[-1]["month"][:4]) + 1
    left, step, lane = 130, 62, 30
    width, height = left + step * (last - first) + 12, lane * len(FAMILIES) + 28
    parts = []
    for year in range(first, last + 1):
        x = left + step * (year - first)
        parts.append(f'<line x1="{x}" y1="4" x2="{x}" y2="{height - 22}"/>')
        if year < last:
            parts.append(f'<text x="{x + step / 2}" y="{height - 6}" text-anchor="middle">{year}</text>')
    for number, family in enumerate(FAMILIES):
        y, taken = lane * number + 18, {}
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{family}</text>')
        for row in rows:
            if row["family"] == family:
                year, month = map(int, row["month"].split("-"))
                x = round(left + step * (year - first + (month - 0.5) / 12), 1)
                taken[x] = taken.get(x, -1) + 1  # several of one month stand above one another
                name = html.escape(f"{row['model']}, {row['month']}")
                parts.append(f'<circle cx="{x}" cy="{y - 7 * taken[x] + 3}" r="4"><title>{name}</title></circle>')
    counts = "; ".join(f"{sum(row['family'] == family for row in rows)} {family}" for family in FAMILIES)
    said = f"A mark for each of {len(rows)} models, by month and family: {counts}"
    return (
        f'<div class="timeline" tabindex="0" role="group" aria-label="Timeline"><svg viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{html.escape(said)}">{"".join(parts)}</svg></div>'
    )
