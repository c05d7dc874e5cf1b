"""Numbers from runs: {{ Diffusion: frechet.ddpm | .2f }} is values.frechet.ddpm of docs/results/Diffusion.json."""

import contextlib
import difflib
import json
import re
from pathlib import Path

from theme.page.source import once_per_version

RESULT = re.compile(r"\s*(?P<key>[\w/-]+)\s*:\s*(?P<path>[\w.+-]+)\s*(?:\|\s*(?P<spec>[^|]*?)\s*)?")
MARKUP = re.compile(r"[&<>\"|*_`$\\\[\]{}]")


@once_per_version
def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def load(root: Path, key: str) -> dict | None:
    """What the lab of a post wrote, or None before its first run."""
    try:
        return _read(root / f"docs/results/{key}.json")
    except FileNotFoundError:
        return None


def _groups(values) -> dict | None:
    """What lies below a value, by name; None where there is nothing below."""
    return dict(values) if isinstance(values, dict) else dict(enumerate(values)) if isinstance(values, list) else None


def is_spread(value) -> bool:
    """Whether a recorded value is that of several seeds."""
    return isinstance(value, dict) and value.keys() == {"mean", "sd", "seeds"}


def find(values, path: str):
    """The value at a dotted path; KeyError if there is none. Names may hold dots."""
    if not path:
        return values
    for name, child in (_groups(values) or {}).items():
        if path == str(name) or path.startswith(f"{name}."):
            with contextlib.suppress(KeyError):
                return find(child, path[len(str(name)) + 1 :])
    raise KeyError(path)


def _paths(values, prefix="") -> list[str]:
    """The dotted paths of all that a page can print."""
    groups = _groups(values)
    below = [path for name, child in (groups or {}).items() for path in _paths(child, f"{prefix}{name}.")]
    return [prefix[:-1]] * (groups is None or is_spread(values)) + below


def value(root: Path, notation: str) -> tuple[str, str]:
    """The formatted number of a notation "Key: path | format", and where it comes from; ValueError if there is none.

    Where several seeds were recorded it is "mean ± standard deviation". A path that begins with timings. leads to what
    a clock measured.
    """
    found = RESULT.fullmatch(notation)
    if not found:
        raise ValueError(f"{{{{{notation}}}}} is no result. Write {{{{ Key: path.to.value | .2f }}}}")
    key, path, spec = found.groups()
    run = load(root, key)
    if run is None:
        raise ValueError(f"docs/results/{key}.json does not exist. Check the name, or run `make lab POST={key}`")
    known = run["values"] | {"timings": run.get("timings", {})}
    try:
        value = find(known, path)
    except KeyError:
        value = {}
    if isinstance(value, dict | list) and not is_spread(value):
        near = difflib.get_close_matches(path, _paths(known), n=3, cutoff=0.0)
        raise ValueError(f"docs/results/{key}.json has no value {path!r}. The nearest are {', '.join(near)}")
    parts = [value["mean"], value["sd"]] if is_spread(value) else [value]
    if isinstance(parts[0], float) and not spec:
        raise ValueError(f"{key}: {path} is {parts[0]!r}. Give a format, such as {{{{ {key}: {path} | .2f }}}}")
    try:
        text = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}".join(format(part, spec or "") for part in parts)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the format {spec!r} does not suit {parts[0]!r}: {error}") from error
    seeds = f", mean ± standard deviation of {len(value['seeds'])} seeds" if is_spread(value) else ""
    return text, f"{key}: {path}{seeds}, run of {run['date']}"


def escape(text: str) -> str:
    """Text that neither Markdown nor HTML reads as markup."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", text)
