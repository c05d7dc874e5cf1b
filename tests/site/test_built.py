"""The files of the built site: links, notations, policy, cards, formulas, downloads. No browser is needed."""

import ast
import base64
import dataclasses
import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup

from tests import building
from theme.around import cards
from theme.page import front, late, lengths, reading
from theme.page.pages import ROOT, Page, posts
from theme.page.source import SourceError, relative
from theme.site import hooks, labs

POSTS = posts()
CARDS = """ControlNet CFG Classifier_Guided_Diffusion StableDiffusion NCSN Diffusion GLIP CLIP TextToImage LLM/LORA
LLM/EvaluationMetricsLLM LLM/Performer LLM/SpanCorruption LLM/Encoder-Decoder LLM/Decoder-Only LLM/ROPE LLM/Roberta
LLM/BERT""".split()  # the order of the design
each_post = pytest.mark.parametrize("post", POSTS, ids=lambda post: post.key)
HERE = "http://here/"


def test_strict_build_takes_less_than_ten_seconds_for_eighteen_posts(site):
    assert site.seconds < building.BAR


def ids(soup) -> list[str]:
    return [element["id"] for element in soup.find_all(id=True)]


def broken(site, url: str, soup, anchors: dict[str, set[str]]) -> list[str]:
    """Links of a page that lead nowhere, and what it would load from another host."""
    found, base = [], urljoin(HERE, "not/there/" if url == "404.html" else url)
    for element in soup.find_all(lambda element: element.get("href") or element.get("src") or element.get("srcset")):
        addresses = [element.get("href"), element.get("src")]
        addresses += [part.split()[0] for part in element.get("srcset", "").split(",") if part]
        for link in filter(None, addresses):
            target = urlsplit(urljoin(base, link))
            if (
                element.get("rel") == ["canonical"]
                or target.scheme in ("data", "mailto")
                or link.startswith("#")
                and unquote(link[1:]) in anchors[url]
            ):
                continue
            if f"{target.scheme}://{target.netloc}/" != HERE:
                found += [] if element.name == "a" else [f"{url}: {link} is loaded from another host"]
                continue
            path = unquote(target.path).lstrip("/")
            if not site.file(path).is_file():
                found.append(f"{url}: {link} leads to no page or file")
            elif target.fragment and unquote(target.fragment) not in anchors.get(path, ()):
                found.append(f"{url}: {link}: there is no such anchor on the page")
    return found


def test_links_and_anchors_lead_somewhere(site):
    anchors = {url: set(ids(soup)) for url, soup in site.pages.items()}
    found = [one for url, soup in site.pages.items() for one in broken(site, url, soup, anchors)]
    for sheet in site.folder.rglob("*.css"):
        urls = re.findall(r"url\(['\"]?([^)'\"]+)", sheet.read_text())
        found += [f"{sheet.name}: {u}" for u in urls if not u.startswith("data:") and not (sheet.parent / u).is_file()]
    assert not found, "\n".join(found)
    bad = '<a href="#no">x</a><a href="contributing/#no">x</a><img src="no.png"><script src="//other/x.js"></script>'
    assert len(broken(site, "", BeautifulSoup(bad, "html.parser"), anchors)) == 4  # negative control


def test_an_id_names_one_element(site):
    for url, soup in site.pages.items():
        twice = [one for one, count in Counter(ids(soup)).items() if count > 1]
        assert not twice, f"{url} has more than once: {twice}"


def test_every_page_has_the_policy_with_the_hashes_of_its_scripts(site):
    for url, soup in site.pages.items():
        (meta,) = soup.find_all("meta", {"http-equiv": "Content-Security-Policy"})
        rules = {name: values for name, *values in (rule.split() for rule in meta["content"].split(";"))}
        assert rules["default-src"] == ["'self'"] and rules["object-src"] == rules["base-uri"] == ["'none'"], url
        assert soup.find("script").sourceline > meta.sourceline, f"{url}: a script stands before the policy"
        for script in (script for script in soup.find_all("script") if not script.get("src")):
            digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in rules["script-src"], f"{url}: {script}"
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & set(rules["script-src"]), url


def test_no_notation_is_left_raw(site):
    notation = re.compile(r"\$|\{\{|--8<--|\\label")
    for url, soup in site.pages.items():
        texts = soup.find_all(string=notation)
        raw = [text for text in texts if not text.find_parent(["pre", "code", "script", "annotation"])]
        raw += [meta for meta in soup.find_all("meta", {"name": "description"}) if re.search(r"[$\\]", meta["content"])]
        assert not raw, f"{url}: {raw[0]}"


def test_the_home_badge_stands_on_every_page_and_leads_home(site):
    for url, soup in site.pages.items():
        home = soup.select_one("main .badges > .badge-home")
        assert home and home.svg and "Home" in home.get_text(), url
        assert urljoin(urljoin(HERE, url), home["href"]) in (HERE, f"{HERE}."), url


def test_the_index_has_a_card_for_each_post_in_the_order_of_the_design(site):
    found = site.pages[""].select(".cards > .card")
    keys = [card.select_one("a.badge")["href"].removeprefix("posts/").removesuffix("/") for card in found]
    assert sorted(keys) == sorted(post.key for post in POSTS)
    assert keys == sorted(keys, key=lambda key: (CARDS.index(key) if key in CARDS else len(CARDS), key))
    for card in found:
        assert card.select_one(".badge-label").text and card.select_one(".card-description").get_text(strip=True)
        assert card.select("img") and all(picture["alt"] for picture in card.select("img"))


def test_a_touch_opens_each_picture_of_a_post_alone(site):
    for url in (f"posts/{post.key}/" for post in POSTS):
        found = site.pages[url].select("article :is(figure, p) img")
        assert found, url
        for picture in found:
            link = picture.parent
            assert link.name == "a" and link["href"].rpartition(".")[2] in ("png", "svg"), f"{url}: {picture}"


def formulas(text: str) -> tuple[int, int]:
    """How many display formulas a source has, and how many in lines."""
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.S | re.M)
    displayed = re.compile(r"\$\$.+?\$\$", re.S)
    return len(displayed.findall(text)), len(re.findall(r"\$[^$]+\$", displayed.sub("", text)))


def rendered(soup) -> tuple[int, int]:
    """The same of a page, on which every formula is there for the eye and as MathML."""
    found = soup.select(".math")
    for formula in found:
        assert len(formula.select(".katex-html")) == len(formula.select("math")) == 1, formula
    displayed = sum(formula.select_one(".katex-display") is not None for formula in found)
    return displayed, len(found) - displayed


@each_post
def test_every_formula_of_a_post_and_of_its_card_is_rendered(post, site):
    page = site.pages[f"posts/{post.key}/"].select_one("article")
    assert rendered(page) == formulas(post.text)
    (card,) = (card for card in site.pages[""].select(".card") if card.find("a", href=f"posts/{post.key}/"))
    assert rendered(card) == formulas(post.meta["description"])
    assert not page.select(".katex-error")


def test_a_description_may_have_formulas_of_both_kinds():
    text = "Of $x$ we know\n\n$$\n\\frac{1}{2} < y\n$$\n\nand *no* more."
    post = dataclasses.replace(POSTS[0], meta=POSTS[0].meta | {"description": text})
    soup = BeautifulSoup(late.insert(cards.cards([post], ROOT, "", None)), "html.parser")
    assert rendered(soup) == (1, 1) and soup.em
    assert len(soup.select(".card-description > p")) == 2 and not soup.select(".card-description > p .katex-display")


@each_post
def test_downloads_are_the_code_of_the_page(post, site):
    url, name = f"posts/{post.key}/", post.name
    page = site.pages[url]
    blocks = page.select("article .language-python:not(.library, .given, .solution) pre")
    shown = "\n".join(block.get_text() for block in blocks).split("\n")
    program, notebook = (page.select_one(f'.downloads a[download][href="{name}.{end}"]') for end in ("py", "ipynb"))
    code = (site.folder / url / program["href"]).read_text()
    ast.parse(code)
    cells = json.loads((site.folder / url / notebook["href"]).read_text())["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code" and "tags" not in cell["metadata"]]
    cells = [line for cell in cells for line in "".join(cell["source"]).split("\n")]
    code = code.partition("\n\n")[2]  # below its head
    lines = [[line for line in text if line.strip()] for text in (shown, code.split("\n"), cells)]
    assert lines[0] and lines[0] == lines[1] == lines[2]


def test_a_contributors_mistake_is_shown_in_the_browser(monkeypatch):
    """While pages are served: instead of one page where it fails as it is made, of every page where sources are wrong."""

    def render(config, files):
        raise SourceError("docs/x.md:3: <wrong>. Mend it")

    page = SimpleNamespace()
    hooks._render_or_tell(page, render, None, None)
    assert "docs/x.md:3: &lt;wrong&gt;. Mend it" in page.content
    monkeypatch.setattr(hooks, "build", SimpleNamespace(wrong="docs/y.md:1: no title. Write it"))
    assert "docs/y.md:1: no title. Write it" in hooks.on_page_content("<p>text</p>", page, None, None)
    assert hooks.on_page_markdown("text", page, None, None) == ""


def test_paths_and_map_lead_to_every_post_after_what_it_needs(site):
    index, keys = site.pages[""], {f"posts/{post.key}/": post for post in POSTS}
    rows = [[link["href"] for link in row.select("li > a")] for row in index.select(".paths ol")]
    assert (
        sorted(url for row in rows for url in row)
        == sorted(link["href"] for link in index.select(".map a"))
        == sorted(keys)
    )
    for row in rows:
        for url, other in pairwise(row):
            assert site.pages[url].select_one('.turn a[rel="next"]')["href"] == relative(other, url)
            assert site.pages[other].select_one('.turn a[rel="prev"]')["href"] == relative(url, other)
        assert not site.pages[row[0]].select('.turn a[rel="prev"]') and not site.pages[row[-1]].select(
            '.turn a[rel="next"]'
        )
        for number, url in enumerate(row):
            assert all(f"posts/{need}/" in row[:number] for need in keys[url].meta["first"] if f"posts/{need}/" in row)
        for url, item in zip(row, index.select(".paths ol")[rows.index(row)].select("small"), strict=True):
            assert item.text.startswith(f"{lengths.minutes(keys[url], ROOT)} minutes.")
    assert len(index.select(".map path")) == sum(len(reading.direct(post, POSTS)) for post in POSTS)


def post_of(key: str, first: dict, **meta) -> Page:
    return Page(ROOT / f"docs/posts/{key}.md", key, {"title": f"{key[-1]}: x", "first": first} | meta, "", 1)


def test_what_to_read_is_made_of_front_matter():
    a, b = post_of("A", {}, known="one thing"), post_of("B", {"A": "up to [x](A.md#x)"})
    c, d = post_of("C", {"A": "", "B": ""}), post_of("LLM/D", {"C": ""})
    pages = [d, c, b, a]
    assert reading.before(a, pages) == "**Read first:** nothing on this site. You should know one thing."
    assert reading.before(b, pages) == "**Read first:** [A](A.md), up to [x](A.md#x)."
    assert reading.before(d, pages) == "**Read first:** [C](../C.md)."
    assert reading.direct(c, pages) == ["B"] and reading.all_needs(c, pages) == {"A", "B"}
    assert reading.after(a, pages) == "**Read next:** [B: x](B.md)." and "(LLM/D.md)" in reading.after(c, pages)
    assert [p.key for p in reading.ordered(pages)["Pictures"]] == ["A", "B", "C"]
    assert reading.depths([post_of("A", {"B": ""}), post_of("B", {"A": ""})]).keys() == {"A", "B"}  # a circle ends


def test_what_to_read_is_checked(tmp_path):
    def wrong(first: str, text: str) -> str:
        head = f"title: x\ndescription: x\nbadge: {{label: x, message: x}}\n{first}"
        for name, told in (
            ("A", (head, text)),
            ("B", ("title: y\nfirst: {A: ''}", "{{ read first }}\n\n{{ read next }}")),
        ):
            (tmp_path / f"docs/posts/{name}.md").write_text(f"---\n{told[0]}\n---\n{told[1]}\n")
        return "\n".join(line for line in front.front_matter(tmp_path) if line.startswith("docs/posts/A"))

    (tmp_path / "docs/posts").mkdir(parents=True)
    both = "{{ read first }}\n\n{{ read next }}"
    assert "read" not in wrong("first: {}", both)
    assert "what to read first is not said" in wrong("", both)
    assert "there is no post C" in wrong("first: {C: ''}", both)
    assert "says the same of this post" in wrong("first: {B: ''}", both)
    assert "**Read first:** is on the page 2 times" in wrong("first: {}", f"**Read first:** B.\n\n{both}")
    assert "**Read next:** is on the page 0 times" in wrong("first: {}", "{{ read first }}")


@each_post
def test_a_post_begins_and_ends_with_what_to_read(post, site):
    url = f"posts/{post.key}/"
    first, after = (
        [p for p in site.pages[url].select("article p") if p.text.startswith(f"Read {w}")] for w in ("first", "next")
    )
    links = [urlsplit(urljoin(urljoin(HERE, url), a["href"])).path[1:] for a in first[0].select("a")]
    assert len(first) == len(after) == 1 and {f"posts/{key}/" for key in post.meta["first"]} <= set(links)
    assert post.meta["first"] or "nothing on this site" in first[0].text
    assert all("href" in a.attrs for a in after[0].select("a")) and after[0].select("a")


def test_labs_show_numbers_with_four_digits():
    printed = "a.b: 0.13020833333333334, -12345.678901, 1.25, 3.0000001e-05, v1.2.34567, [0.5, 0.49999999]"
    assert labs.short(printed) == "a.b: 0.1302, -12345.7, 1.25, 3e-05, v1.2.34567, [0.5, 0.5]"


def test_no_lab_shows_a_number_that_nobody_reads(site):
    for url in site.pages:
        if url.startswith("labs/"):
            shown = " ".join(block.get_text() for block in site.pages[url].select("pre.output"))
            assert not re.search(r"(?<![\w.])-?\d+\.0*[1-9]\d{5,}(?![\w.])", shown), url
