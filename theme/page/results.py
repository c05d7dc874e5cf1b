"""Numbers from runs: {{ Diffusion: frechet.ddpm | .2f }} is values.frechet.ddpm of docs/results/Diffusion.json."""

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
    path = root / f"docs/results/{key}.json"
    return _read(path) if path.is_file() else None


def _paths(values, prefix="") -> dict:
    """Every value by its dotted path."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else None
    if items is None:
        return {prefix[:-1]: values}
    return {path: value for name, child in items for path, value in _paths(child, f"{prefix}{name}.").items()}


def value(root: Path, notation: str) -> tuple[str, str]:
    """The formatted number of a notation "Key: path | format", and where it comes from; ValueError if there is none."""
    found = RESULT.fullmatch(notation)
    if not found:
        raise ValueError(f"{{{{{notation}}}}} is no result. Write {{{{ Key: path.to.value | .2f }}}}")
    key, path, spec = found.groups()
    run = load(root, key)
    if run is None:
        raise ValueError(f"docs/results/{key}.json does not exist. Check the name, or run `make lab POST={key}`")
    values = _paths(run["values"])
    if path not in values:
        near = difflib.get_close_matches(path, values, n=3, cutoff=0.0)
        raise ValueError(f"docs/results/{key}.json has no value {path!r}. The nearest are {', '.join(near)}")
    if isinstance(values[path], float) and not spec:
        raise ValueError(f"{key}: {path} is {values[path]!r}. Give a format, such as {{{{ {key}: {path} | .2f }}}}")
    try:
        text = format(values[path], spec or "")
    except (ValueError, TypeError) as error:
        raise ValueError(f"the format {spec!r} does not suit {values[path]!r}: {error}") from error
    return text, f"{key}: {path}, run of {run['date']}"


def escape(text: str) -> str:
    """Text that neither Markdown nor HTML reads as markup."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", text)
