"""What a build has made of a text, kept for the next build under a fingerprint of the text and of the code."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from functools import wraps

from theme.page.pages import ROOT

FOLDER = ROOT / ".site-cache"


def between_builds(make: Callable[[str], object]):
    """Decorator for a function of a text whose result JSON can hold; `save` writes what this build has used."""
    code = hashlib.sha256(f"{sys.version}{inspect.getsource(inspect.getmodule(make))}".encode()).hexdigest()
    file, kept, used = FOLDER / f"{make.__name__}.json", {}, {}

    def load() -> None:
        try:
            kept.update(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError):
            kept.update({"": None})

    @wraps(make)
    def keeping(text: str):
        if not kept:
            load()
        key = hashlib.sha256(f"{code}{text}".encode()).hexdigest()
        if key not in used:
            used[key] = kept[key] if key in kept else make(text)
        return used[key]

    def save() -> None:
        if used.keys() != kept.keys():
            FOLDER.mkdir(exist_ok=True)
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(used), encoding="utf-8")
            fresh.replace(file)

    keeping.save = save
    return keeping
