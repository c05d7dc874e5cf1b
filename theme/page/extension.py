r"""One Python-Markdown extension for all that a page's source may contain besides Markdown.

The builder passes a `theme.page.source.Source` and calls `theme.page.late.insert` on the finished page.

{{ Diffusion: frechet.ddpm | .2f }}     a number from a run
{{ claim: ddpm-clipping }}              a small mark that leads to the test of what stands before it
$x_0$ and $$ … \label{name} $$          formulas; with a label, a numbered equation
[](#eq-name) or [](Other.md#eq-name)    a link to it, worded "equation (1)"
--8<-- "snippets/ddpm.py:schedule"      in a ```python fence: a titled block; ```python fold: a folded one;
                                        ```python library, given, solution: code beside the page's program
```diff tests/snippets/test_x.py::test  a fault in the page's code, and the test that catches it
![what to see](../figures/x/loss.svg)   a picture: size, lazy loading, dark version beside it, a link to its file
`ddpm_step`, `DDIMScheduler`, PyTorch   names lead to their block, source or documentation (`theme.page.named`)
[text](../../tests/shapes.py)           a link to a file of the repository: leads to its source page
```bibtex                               references: a list with links, and the block folded
{{ live: Draw ten digits }}             on a line of its own: the figure above computes (`theme.page.live`)
{{ cards }}, {{ program }}              on a line of its own: HTML that the build hands over
"""

import html
import posixpath
import xml.etree.ElementTree as etree
from urllib.parse import unquote, urlsplit

from markdown import Extension
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor
from pymdownx.superfences import SuperFencesCodeExtension

from theme.page import breakages, claims, equations, late, listings, live, maths, named, pictures, references, results
from theme.page.marks import Mark
from theme.page.pages import ROOT, expand
from theme.page.source import TOKEN, Source

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}


class Notations(Preprocessor):
    """Results, titles of code blocks, and checks of formulas, on the lines as they stand in the file."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, lines: list[str]) -> list[str]:
        """Replace each notation; code and formulas are left alone."""
        return TOKEN.sub(self._replace, "\n".join(lines)).split("\n")

    def _replace(self, match) -> str:
        source, text, offset = self.source, match[0], match.start()
        if match["mark"]:
            if not source.key:
                return text
            titled = breakages.titled_fence if match["info"].startswith("diff") else listings.titled_fence
            return f"{titled(source, match)}\n{expand(text.partition(chr(10))[2], source.root)}"
        if match["alt"]:
            return TOKEN.sub(lambda part: self._result(part, offset, plain=True), text[2:]).join(("![", ""))
        elif match["braces"] is not None:
            return self._result(match, 0, plain=False)
        return text

    def _result(self, match, offset: int, plain: bool) -> str:
        notation = match["braces"]
        if notation is None or notation.strip() in self.source.blocks or live.LIVE.fullmatch(match[0]):
            return match[0]
        if found := claims.CLAIM.fullmatch(match[0]):
            return "" if plain else self._claim(found["id"])
        try:
            text, origin = results.value(self.source.root, notation)
        except ValueError as error:
            raise self.source.error(offset + match.start(), str(error)) from error
        text = results.escape(text)
        return text if plain else f'<span class="result" tabindex="0" title="{results.escape(origin)}">{text}</span>'

    def _claim(self, name: str) -> str:
        """A small mark that leads to the claim's test, where there is one."""
        if name not in self.source.tests.get("claim", {}):
            return ""
        path, line = self.source.tests["claim"][name]
        address = f"{self.source.link(listings.page_url(path))}#L{line}"
        label = f'title="A test asserts this: {path}, line {line}" aria-label="tested claim"'
        return f'<a class="claim" id="claim-{name}" href="{address}" {label}>✓</a>'


class Formulas(Treeprocessor):
    """KaTeX's markup in place of arithmatex's, numbers and tests of equations, and links to equations."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Render all formulas of the page at once."""
        elements = [element for element in root.iter() if element.get("class") == "arithmatex"]
        sources = [element.text[2:-2].strip() for element in elements]
        displayed = [element.tag == "div" for element in elements]
        sources = [html.unescape(tex) if display else tex for tex, display in zip(sources, displayed, strict=True)]
        in_headings = {child for heading in root.iter() if heading.tag in HEADINGS for child in heading.iter("span")}
        formulas = [(equations.LABEL.sub("", tex).strip(), d) for tex, d in zip(sources, displayed, strict=True)]
        for element, tex, (markup, problem) in zip(elements, sources, maths.render_all(formulas), strict=True):
            if problem:
                raise self.source.error_at(tex, f"{problem} (in {' '.join(tex.split())})")
            self._fill(element, tex, markup, element in in_headings)
        for link in root.iter("a"):
            self._word(link)

    def _fill(self, element: etree.Element, tex: str, markup: str, in_heading: bool) -> None:
        element.attrib.clear()
        element.set("class", "math")
        if element.tag == "span":
            markup = maths.breakable(markup)
        text = maths.plain_text(markup) if in_heading or element.tag == "span" else "…"  # for contents and search
        element.text = self.md.htmlStash.store(late.place(markup, html.escape(text), "katex"))
        if element.tag != "div":
            return
        label = equations.LABEL.search(tex)
        equation = self.source.equations.get(label[1]) if label else None
        name = f"Equation {equation.number}" if equation else "Formula"
        formula = etree.Element("div", element.attrib | {"tabindex": "0", "role": "group", "aria-label": name})
        formula.text = element.text
        element.attrib.clear()
        element.text = None
        element.set("class", "equation")
        element.append(formula)
        if equation:
            self._number(element, equation)

    def _number(self, element: etree.Element, equation: Mark) -> None:
        element.set("id", f"eq-{equation.id}")
        number = etree.SubElement(element, "a", {"class": "equation-number", "href": f"#eq-{equation.id}"})
        number.text = f"({equation.number})"
        if equation.id in self.source.tests.get("equation", {}):
            path, line = self.source.tests["equation"][equation.id]
            up = posixpath.relpath(f"docs/source/{path}.md", posixpath.dirname(self.source.path))
            attributes = {"class": "equation-test", "href": f"{up}#L{line}", "title": f"{path}, line {line}"}
            mark = etree.SubElement(element, "a", attributes)
            mark.text = "tested"

    def _word(self, link: etree.Element) -> None:
        path, _, name = link.get("href", "").partition("#eq-")
        if not name or len(link) or (link.text or "").strip():
            return
        equation = self.source.equations.get(name)
        here = posixpath.dirname(self.source.path)
        target = posixpath.normpath(posixpath.join(here, path)) if path else self.source.path
        if not equation or equation.path != target:
            known = f"It is in {equation.path}" if equation else "No post has it"
            raise self.source.error_at(f"#eq-{name}", f"{target} has no equation labelled {name!r}. {known}")
        link.text = f"equation ({equation.number})"


class Pictures(Treeprocessor):
    """Attributes and dark versions of pictures, each in a link to its file: a touch opens it large."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Complete every picture of the page."""
        here = (self.source.root / self.source.path).parent
        for parent in list(root.iter()):
            for picture in [child for child in parent if child.tag == "img"]:
                self._complete(parent, picture, here)
        for figure in root.iter("figure"):
            if any("wide" in picture.get("class", "").split() for picture in figure.iter("img")):
                figure.set("class", f"{figure.get('class', '')} wide".strip())

    def _complete(self, parent: etree.Element, picture: etree.Element, here) -> None:
        address = picture.get("src")
        path = here / unquote(address)
        picture.attrib.update(pictures.attributes(path))
        shown = [picture]
        dark = pictures.dark_version(path)
        if dark:
            beside = posixpath.join(posixpath.dirname(address), dark.name)
            shown.append(etree.Element("img", picture.attrib | {"src": beside}))
            for element, scheme in zip(shown, ("light", "dark"), strict=True):
                element.set("class", f"{element.get('class', '')} only-{scheme}".strip())
        link = parent
        if parent.tag != "a":
            link = etree.Element("a", pictures.ALONE | {"href": address})
            link.tail, picture.tail = picture.tail, None
            parent[list(parent).index(picture)] = link
            link.append(picture)
        link.extend(shown[1:])


class Links(Treeprocessor):
    """Links to files of the repository lead to their source pages."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Rewrite links that leave docs/ for a file that exists."""
        here = posixpath.dirname(self.source.path)
        for link in root.iter("a"):
            parts = urlsplit(link.get("href", ""))
            target = posixpath.normpath(posixpath.join(here, unquote(parts.path)))
            outside = not target.startswith(("docs/", "../"))
            if parts.path and not parts.scheme and outside and (self.source.root / target).is_file():
                anchor = f"#{parts.fragment}" if parts.fragment else ""
                link.set("href", posixpath.relpath(f"docs/source/{target}.md", here) + anchor)


class Blocks(Treeprocessor):
    """Paragraphs that stand for HTML which the build hands over."""

    def __init__(self, source: Source):
        self.source = source

    def run(self, root: etree.Element) -> None:
        """Replace paragraphs {{ name }}."""
        for element in root.iter("p"):
            text = (element.text or "").strip()
            name = text.removeprefix("{{").removesuffix("}}").strip()
            if not len(element) and text.startswith("{{") and name in self.source.blocks:
                element.tag = "div"
                element.set("class", "made")
                element.text = self.md.htmlStash.store(self.source.blocks[name])


class Verbatim(Extension):
    """All of the above."""

    def __init__(self, **settings):
        self.config = {"source": [Source(ROOT, "docs/unknown.md", ""), "the page"]}
        super().__init__(**settings)

    def extendMarkdown(self, md):
        """Register after pymdownx's extensions; priorities place each piece among Python-Markdown's own."""
        source = self.getConfig("source")
        md.preprocessors.register(Notations(source), "verbatim-notations", 33)  # before includes are expanded
        for piece, name, priority in (
            (Formulas, "formulas", 15),  # after inline Markdown, before the table of contents
            (Blocks, "blocks", 14),
            (live.Live, "live", 12),
            (references.Mentions, "mentions", 13),
            (named.Named, "named", 12),
            (Pictures, "pictures", 7),  # after attr_list
            (Links, "links", 6),
        ):
            processor = piece(source)
            processor.md = md
            md.treeprocessors.register(processor, f"verbatim-{name}", priority)
        for extension in md.registeredExtensions:
            if isinstance(extension, SuperFencesCodeExtension):
                for language, formatter in (
                    ("python", listings.python_fence),
                    ("diff", breakages.fence),
                    ("bibtex", references.bibtex_fence),
                ):
                    extension.extend_super_fences(language, formatter(source), _with_settings, None)


def _with_settings(language, inputs, options, attrs, md) -> bool:
    md.preprocessors["fenced_code_block"].get_hl_settings()
    return listings.accept_options(language, inputs, options, attrs, md)


def makeExtension(**settings):
    """Python-Markdown's entry point."""
    return Verbatim(**settings)
