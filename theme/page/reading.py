"""What to read before a post and after it, from the front matter of all posts.

    first: {Diffusion: "up to its loss", CFG: ""}     the posts that it builds on, each with words behind the link
    known: what softmax and cross-entropy are         what it takes for granted besides them

On the page, {{ read first }} and {{ read next }} stand for a sentence each that is made of it. The same front matter
gives the order of the paths on the index, their map, and a page's previous and next one.
"""

import dataclasses
import posixpath

FIRST, NEXT = "{{ read first }}", "{{ read next }}"
PATHS = ("Pictures", "Language")


def name(page) -> str:
    """What a post is called in a sentence: its title up to the colon."""
    return str(page.meta.get("title", page.key)).partition(":")[0]


def path_of(page) -> str:
    """The path on which a post stands."""
    return PATHS[page.key.startswith("LLM/")]


def needs(page) -> dict[str, str]:
    """The posts to read first, by key, each with what the page says behind its name."""
    said = page.meta.get("first")
    return said if isinstance(said, dict) else {}


def depths(pages: list) -> dict[str, int]:
    """For each post, how many others at most stand in a row before it."""
    known, found = {page.key: page for page in pages}, {}

    def depth(key: str) -> int:
        if key not in found:
            found[key] = 0  # so that a circle, which a check reports, ends
            found[key] = max((depth(one) + 1 for one in needs(known[key]) if one in known), default=0)
        return found[key]

    return {key: depth(key) for key in known}


def ordered(pages: list) -> dict[str, list]:
    """The posts of each path, each after those that it needs; equals in the index's order from its end."""
    depth = depths(pages)
    row = sorted(reversed(pages), key=lambda page: depth[page.key])
    return {path: [page for page in row if path_of(page) == path] for path in PATHS}


def all_needs(page, pages: list) -> set[str]:
    """The posts that a post needs, and those that they need, and so on."""
    known, found, ahead = {one.key: one for one in pages}, set(), [page]
    while ahead:
        fresh = {key for key in needs(ahead.pop()) if key in known} - found
        found |= fresh
        ahead += [known[key] for key in fresh]
    return found


def direct(page, pages: list) -> list[str]:
    """The posts that a post needs, but for those that another one of them needs anyway."""
    known = {one.key: one for one in pages}
    mine = [key for key in needs(page) if key in known]
    return [key for key in mine if not any(key in all_needs(known[other], pages) for other in mine)]


def before(page, pages: list) -> str:
    """The sentence on what to read first, in Markdown."""
    known = {one.key: one for one in pages}
    found = [
        link(page, known[key]) + (f", {words}" if words else "") for key, words in needs(page).items() if key in known
    ]
    taken = f" You should know {page.meta['known']}." if page.meta.get("known") else ""
    return f"**Read first:** {'; '.join(found) or 'nothing on this site'}.{taken}"


def after(page, pages: list) -> str:
    """The sentence on what to read next, in Markdown: what builds on the post, else the next one of the path."""
    found = [one for row in ordered(pages).values() for one in row if page.key in direct(one, pages)]
    if not found:
        (row,) = (row for row in ordered(pages).values() if any(one.key == page.key for one in row))
        at = [one.key for one in row].index(page.key)
        fresh = [one for one in pages if not needs(one) and one.key not in {page.key} | all_needs(page, pages)]
        found = row[at + 1 : at + 2] or fresh
    return f"**Read next:** {'; '.join(link(page, one, whole=True) for one in found)}." if found else ""


def link(page, other, whole: bool = False) -> str:
    """A link from a post to another one, in Markdown."""
    target = posixpath.relpath(f"{other.key}.md", posixpath.dirname(page.key) or ".")
    return f"[{other.meta.get('title', other.key) if whole else name(other)}]({target})"


def filled(text: str, page, pages: list) -> str:
    """A post's text with both sentences in their places."""
    for notation, sentence in ((FIRST, before), (NEXT, after)):
        if notation in text:
            text = text.replace(notation, sentence(page, pages))
    return text


def with_sentences(pages: list) -> list:
    """All posts with both sentences in their texts."""
    return [dataclasses.replace(page, text=filled(page.text, page, pages)) for page in pages]
