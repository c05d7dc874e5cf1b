"""Formulas, rendered while the site is built: KaTeX in an embedded V8, and no script in the reader's browser."""

import atexit
import html
import logging
import re
import unicodedata
from functools import cache
from io import BytesIO
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from theme.page.pages import ROOT

KATEX = ROOT / "node_modules/katex/dist"
RENDER = r"""
function renderAll(formulas) {
  return formulas.map(([tex, display]) => {
    try { return [katex.renderToString(tex, {displayMode: display, output: "htmlAndMathml", strict: "error"}), null] }
    catch (error) {  // KaTeX underlines the place with combining characters
      return [null, error.message.normalize("NFD").replace(/\u0332/g, "").normalize("NFC").replace(/\s+/g, " ")]
    }
  })
}
"""
TAGS = re.compile(r"<annotation.*?</annotation>|<[^>]*>", re.S)
ACCENT = re.compile("(\\w)([\u02c9^~])")
COMBINING = {"\u02c9": "\u0304", "^": "\u0302", "~": "\u0303"}
OTHER_FORMATS = re.compile(r'url\([^)]*\.woff2\)\s*format\("woff2"\),|,url\([^)]*\.ttf\)\s*format\("truetype"\)')
# KaTeX's fonts carry no date, of which fontTools warns
logging.getLogger("fontTools").setLevel(logging.ERROR)

_rendered: dict[tuple[str, bool], tuple[str | None, str | None]] = {}


@cache
def _engine():
    from py_mini_racer import MiniRacer

    script = KATEX / "katex.min.js"
    if not script.is_file():
        raise FileNotFoundError(f"{script} does not exist. Run `make serve` or `npm ci`, which install it")
    engine = MiniRacer()
    atexit.register(engine.close)  # without it the process hangs at its end
    engine.eval(script.read_text(encoding="utf-8"))
    engine.eval(RENDER)
    return engine


def render_all(formulas: list[tuple[str, bool]]) -> list[tuple[str | None, str | None]]:
    """(HTML, None) or (None, what is wrong) for each (TeX, whether it is displayed); each is rendered once."""
    fresh = [formula for formula in dict.fromkeys(formulas) if formula not in _rendered]
    if fresh:
        _rendered.update(zip(fresh, map(tuple, _engine().call("renderAll", fresh)), strict=True))
    return [_rendered[formula] for formula in formulas]


@cache
def plain_text(markup: str) -> str:
    """A rendered formula as text, for a table of contents and the search: ᾱt, x̂0."""
    mathml = markup.partition("</math>")[0]
    text = html.unescape(TAGS.sub("", mathml)).replace("\u2061", "").replace("\u03f5", "\u03b5")
    return unicodedata.normalize("NFC", ACCENT.sub(lambda match: match[1] + COMBINING[match[2]], text))


def breakable(markup: str) -> str:
    """A rendered formula in a line, which may break where KaTeX lets it, but not before the full stop after it."""
    return markup.replace('</span><span class="katex-base">', '</span><wbr><span class="katex-base">')


def stylesheet() -> str:
    """KaTeX's stylesheet, with web fonts of the one format that `fonts` makes."""
    return OTHER_FORMATS.sub("", (KATEX / "katex-swap.min.css").read_text(encoding="utf-8"))


def fonts() -> dict[str, bytes]:
    """KaTeX's fonts by file name, cut to the characters that the formulas rendered so far use."""
    used = set("".join(html.unescape(TAGS.sub("", markup)) for markup, _ in _rendered.values() if markup))
    whole = (KATEX / "fonts").glob("*.ttf")
    return {f"{path.stem}.woff": _cut(path, frozenset(used & _characters(path))) for path in whole}


@cache
def _characters(path: Path) -> set[str]:
    with TTFont(path, lazy=True) as font:
        return set(map(chr, font.getBestCmap()))


@cache
def _cut(path: Path, used: frozenset[str]) -> bytes:
    options = subset.Options(flavor="woff", hinting=False, notdef_outline=True)
    cutter = subset.Subsetter(options)
    cutter.populate(text="".join(used))
    cut = BytesIO()
    with subset.load_font(str(path), options) as font:
        cutter.subset(font)
        subset.save_font(font, cut, options)
    return cut.getvalue()
