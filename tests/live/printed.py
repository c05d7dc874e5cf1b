"""The Python of a live figure that runs printed code, run by this Python."""

from functools import cache

from theme.page import live
from theme.page.pages import posts


@cache
def program(key: str) -> dict:
    """What the Python of a post's figure defines, by name."""
    (post,) = (post for post in posts() if post.key == key)
    names: dict = {}
    exec(live.made(post), names)
    return names
