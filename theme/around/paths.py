"""The paths of the index: which post to read after which, how long each takes, and a map."""

import html
from pathlib import Path

import markdown

from theme.page import reading
from theme.page.lengths import minutes
from theme.page.pages import Page
from theme.page.source import relative

WIDE, HIGH, BOX = 132, 34, (112, 24)  # of the map: a column, a row, the box of a post


def paths(posts: list[Page], root: Path, url: str) -> str:
    """The map and a list for each path, in the order in which its posts can be read."""
    lists = []
    for name, row in reading.ordered(posts).items():
        items = "".join(f"<li>{_item(post, posts, root, url)}</li>" for post in row)
        lists += [f"<div><h3>{name}</h3><ol>{items}</ol></div>"] if row else []
    summary = "<summary>In which order, how long it takes, and what to know before</summary>"
    return f'{_map(posts, url)}<details class="fold">{summary}<div class="paths">{"".join(lists)}</div></details>'


def _item(post: Page, posts: list[Page], root: Path, url: str) -> str:
    known = {one.key: one for one in posts}
    needs = [reading.name(known[key]) for key in reading.direct(post, posts)]
    taken = markdown.markdown(f"You should know {post.meta['known']}." if post.meta.get("known") else "")
    taken = taken.removeprefix("<p>").removesuffix("</p>")
    after = f"After {' and '.join(needs)}." if needs else "Needs no other page."
    link = f'<a href="{relative(f"posts/{post.key}/", url)}">{html.escape(str(post.meta["title"]))}</a>'
    return f"{link} <small>{minutes(post, root)} minutes. {after} {taken}</small>"


def _map(posts: list[Page], url: str) -> str:
    """A drawing of which post needs which: a column for each step, lines from what is needed to what needs it."""
    depth, places, lines, boxes, top = reading.depths(posts), {}, "", "", 0
    for row in reading.ordered(posts).values():
        used: dict[int, int] = {}
        for post in row:
            column = depth[post.key]
            places[post.key] = column * WIDE, (top + used.get(column, 0)) * HIGH
            used[column] = used.get(column, 0) + 1
        top += max(used.values(), default=0)
    width, height = BOX
    for post in posts:
        x, y = places[post.key]
        for key in reading.direct(post, posts):
            a, b = places[key]
            middle = (a + width + x) / 2
            start, end = f"{a + width},{b + height / 2}", f"{x},{y + height / 2}"
            lines += f'<path d="M{start} C{middle},{b + height / 2} {middle},{y + height / 2} {end}"/>'
        name = html.escape(reading.name(post))
        boxes += (
            f'<a href="{relative(f"posts/{post.key}/", url)}"><rect x="{x}" y="{y}" width="{width}" height="{height}" '
            f'rx="4"/><text x="{x + width / 2}" y="{y + 16}" text-anchor="middle">{name}</text></a>'
        )
    size = (max(x for x, _ in places.values()) + width, top * HIGH) if places else (0, 0)
    label = "Map of the posts: a line leads from each post to those that build on it"
    view = f'viewBox="-1 -1 {size[0] + 2} {size[1] + 2}" width="{size[0] + 2}" height="{size[1] + 2}"'
    return f'<div class="map"><svg {view} role="group" aria-label="{label}"><g>{lines}</g>{boxes}</svg></div>'
