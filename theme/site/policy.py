"""Content-Security-Policy: what a page of the site may load, as a meta tag in every page."""

import base64
import hashlib
import re
from pathlib import Path

SCRIPT = re.compile(r"<script>(.*?)</script>", re.S)
CHARSET = '<meta charset="utf-8">'


def policy(pages: list[str]) -> str:
    """The policy of a site with these pages: nothing from elsewhere, no inline script but those that are there now."""
    hashes = {hashlib.sha256(script.encode()).digest() for page in pages for script in SCRIPT.findall(page)}
    scripts = "".join(f" 'sha256-{base64.b64encode(hash_).decode()}'" for hash_ in sorted(hashes))
    return (
        f"default-src 'self'; script-src 'self'{scripts}; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'"
    )


def protect(site: Path) -> None:
    """Put the policy into every page of a built site."""
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    tag = f'{CHARSET}\n    <meta http-equiv="Content-Security-Policy" content="{policy(list(texts.values()))}">'
    for path, text in texts.items():
        if CHARSET not in text:
            raise ValueError(f"{path} has no {CHARSET}, after which the policy belongs. Add it to theme/overrides")
        path.write_text(text.replace(CHARSET, tag, 1), encoding="utf-8")
