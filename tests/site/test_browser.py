"""The built site in a real browser: requests, errors, accessibility, width, weight, and what scripts do."""

import gzip
import re
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect

from tests.site.conftest import no_browser
from theme.around import header
from theme.page.pages import ROOT, posts

expect.set_options(timeout=20_000)
LOOKS = [("light", 1280), ("dark", 390), ("light", 390), ("dark", 1280)]
LABS = sorted(f"{path.relative_to(ROOT / 'docs').with_suffix('')}/" for path in ROOT.glob("docs/labs/**/*.ipynb"))
POSTS = [f"posts/{post.key}/" for post in posts()]
KINDS = ["", *POSTS[:1], *LABS[:1], "contributing/", "source/snippets/data/digits.py/", "not/there/"]
# one page of each kind has all four looks, every other post and lab one of them, in turn
PAGES = {url: LOOKS for url in KINDS}
PAGES |= {url: [LOOKS[number % 4]] for number, url in enumerate([*POSTS[1:], *LABS[1:]])}

# Every block is laid out, as it is for the reader who has scrolled to it; formulas and code repeat themselves by the
# thousand, so axe sees of a formula its MathML only, and in a block of code each colour once.
PREPARE = """async () => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { content-visibility: visible !important }");
  document.adoptedStyleSheets = [sheet];
  for (const picture of document.images) picture.loading = "eager";
  await Promise.allSettled([...document.images].map((picture) => picture.decode()));
  for (const visual of document.querySelectorAll(".katex-html")) visual.remove();
  for (const block of document.querySelectorAll("pre")) {
    const seen = new Set();
    for (const token of block.querySelectorAll("span")) {
      if (seen.has(token.className)) token.replaceWith(...token.childNodes);
      seen.add(token.className);
    }
  }
}"""
SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
WIDE = """[...document.querySelectorAll("html, .badge, .badge span")]
  .filter((element) => element.scrollWidth > element.clientWidth)
  .map((element) => `${element.tagName} "${element.className}" is wider than its place`)"""
UNREACHABLE = """[...document.querySelectorAll("article *")]
  .filter((element) => /auto|scroll/.test(getComputedStyle(element).overflowX) && element.checkVisibility())
  .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.tabIndex < 0)
  .map((element) => `no key reaches ${element.outerHTML.slice(0, 120)}`)"""
SMALL = """[...document.querySelectorAll("figure img[src$='.svg']")]
  .filter((picture) => picture.checkVisibility() && picture.clientWidth < 0.85 * picture.getAttribute("width"))
  .map((picture) => `${picture.src} is drawn at ${picture.clientWidth} pixels: its letters are too small`)"""
LOST = "[...document.images].filter((picture) => !picture.naturalWidth).map((picture) => picture.src)"
LOAD_AXE = (ROOT / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8") + ";0"
AXE = """async () => (await axe.run({resultTypes: ["violations"]})).violations
  .flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html.slice(0, 200)}`))"""


def faults(tab, url: str, looks) -> list[str]:
    """All that is wrong with a page in some looks, each a colour scheme and a width."""
    found = []
    tab.go(url, *looks[0])
    tab.page.evaluate(LOAD_AXE)
    for scheme, width in looks:
        tab.page.emulate_media(color_scheme=scheme)
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.page.evaluate(SETTLED)
        problems = [fault for kind in (WIDE, UNREACHABLE, SMALL) for fault in tab.page.evaluate(kind)]
        tab.page.evaluate(PREPARE)
        tab.page.evaluate(SETTLED)
        problems += tab.page.evaluate(AXE)
        found += [f"{scheme}, {width}: {problem}" for problem in problems]
    hosts = {urlsplit(request.url).netloc for request in tab.requests if not request.url.startswith("data:")}
    found += [f"asks {host}" for host in hosts - {urlsplit(tab.page.url).netloc}]
    return found + tab.errors + [f"no picture: {picture}" for picture in tab.page.evaluate(LOST)]


@pytest.mark.parametrize("url", PAGES)
def test_a_page_is_sound(url, tab):
    found = faults(tab, url, PAGES[url])
    assert not found, "\n".join(found)
    assert len(tab.requests) >= 4  # negative control: we would have seen others


def test_the_verified_line_and_its_details_are_sound(tab, site):
    """Which a build without a report does not have."""
    key, url = posts()[0].key, POSTS[0]
    oracle = {"name": "diffusers 0.42.1 AVeryLongNameThatHasToBreakSomewhereInTheLine", "difference": 0, "tolerance": 1}
    counts = dict.fromkeys(("tests", "equations", "evaluated", "pinned", "claims", "exercises", "breakages"), 1234)
    report = {"date": "2026-11-25", "posts": {key: counts | {"shape_comments": 1, "oracles": [oracle] * 2}}}
    line = header.verified(key, report, url)
    details = header.verified_details(key, report, url, {"date": "2026-11-25"}, {"date": "2026-11-25"})
    html = (
        site.file(url).read_text().replace("</h1>", f"</h1>{line}", 1).replace("</article>", f"{details}</article>", 1)
    )
    tab.page.route("**/verified-one/", lambda route: route.fulfill(body=html, content_type="text/html"))
    found = faults(tab, f"{url.rpartition('/')[0].rpartition('/')[0]}/verified-one/", LOOKS)
    assert not found, "\n".join(found)
    tab.page.locator(".verified a").first.click()
    expect(tab.page.locator("#verified")).to_be_in_viewport()
    tab.page.locator(".verified-details dt a").first.click()
    expect(tab.page.locator("#tests")).to_be_in_viewport()


def test_unsound_pages_are_found(tab, site):
    bad = """<div style="overflow: auto; width: 90px"><p style="width: 99px">x</p></div><img src="none.png"><p style="width: 500px; color: #999">pale</p><img src="//other.example/x.png" alt="x">
    <script>document.title = "x"</script></article>"""
    html = site.file("contributing/").read_text().replace("</article>", bad, 1)
    html = html.replace("img-src", "img-src http:")
    tab.page.route("**/bad/", lambda route: route.fulfill(body=html, content_type="text/html"))
    tab.page.route("**/x.png", lambda route: route.abort())
    found = "\n".join(faults(tab, "bad/", LOOKS[2:3]))
    for fault in (
        "image-alt",
        "color-contrast",
        'HTML "" is wider',
        "asks other.example",
        "no picture",
        "inline script violates",
        "no key reaches",
    ):
        assert fault in found, f"{fault} is not in\n{found}"


@pytest.mark.parametrize("url", POSTS)
def test_the_first_view_of_a_post_weighs_at_most_250_kib(url, tab, site):
    """All that the browser fetches before the reader scrolls (HTML, styles, scripts, fonts, icon), each file gzipped.

    Pictures are left out: all are loaded lazily, most of them only when the reader comes near.
    """
    tab.go(url)
    asked = [unquote(urlsplit(one.url).path).lstrip("/") for one in tab.requests if one.resource_type != "image"]
    files = {site.file(path) for path in asked}
    sizes = {file.relative_to(site.folder).as_posix(): len(gzip.compress(file.read_bytes())) for file in files}
    assert {"css", "js", "woff", "woff2", "html"} <= {name.rpartition(".")[2] for name in sizes}
    assert sum(sizes.values()) <= 250 * 1024, sizes
    assert all(picture["loading"] == "lazy" for picture in site.pages[url].select("article img"))


def test_a_link_to_an_equation_leads_to_it_and_its_mark_to_its_test(tab, site):
    url = next(url for url in POSTS if site.pages[url].select('article a[href^="#eq-"]:not(.equation-number)'))
    tab.go(url, width=390)
    link = tab.page.locator('article a[href^="#eq-"]:not(.equation-number)').last
    name = link.get_attribute("href")
    link.click()
    equation = tab.page.locator(f"{name}.equation:target")
    assert name.startswith("#eq-") and tab.page.url.endswith(name)
    expect(equation).to_be_in_viewport()
    equation.locator(".equation-test").click()
    line = tab.page.locator(":target")
    expect(line).to_be_in_viewport()
    number = int(line.get_attribute("id")[1:])
    path = tab.page.url.partition("/source/")[2].partition("/#")[0]
    assert re.match(r"\s*def test_", (ROOT / path).read_text().split("\n")[number - 1])


def test_search_is_fetched_when_opened_and_leads_to_pages_and_sections(tab, site):
    tab.go("")
    asked = lambda: [one.url for one in tab.requests if re.search("minisearch|/search/", one.url)]  # noqa: E731
    tab.page.wait_for_load_state("networkidle")
    assert not asked()
    tab.page.keyboard.press("/")
    query = tab.page.get_by_role("searchbox")
    for url in POSTS:
        heading = max(site.pages[url].select("article h2"), key=lambda h2: len(h2.text))
        for term, link in ((site.pages[url].h1.text, url), (heading.text, f"{url}#{heading['id']}")):
            query.fill(term.rstrip("#"))
            result = tab.page.locator(f'#search-results a[href$="/{link}"]')
            expect(result).to_be_visible()
    assert len(asked()) == 2
    result.press("Enter")
    expect(tab.page.locator(f"[id='{heading['id']}']")).to_be_in_viewport()
    assert tab.page.url.endswith(link) and not tab.errors
    tab.page.get_by_role("button", name="Search").click()
    query.fill("xyzzyx")
    expect(tab.page.locator("#search-status")).to_have_text("Nothing found")


SHOWN = """[...document.querySelectorAll("article :is(.only-light, .only-dark)")]
  .filter((picture) => picture.checkVisibility()).map((picture) => picture.classList.contains("only-dark"))"""
GROUND = "getComputedStyle(document.body).backgroundColor"


def scheme(tab) -> str:
    """The scheme of a page's pictures in pairs, which is that of its ground."""
    (dark,) = set(tab.page.evaluate(SHOWN))
    assert tab.page.evaluate(GROUND) == ("rgb(21, 23, 26)" if dark else "rgb(252, 251, 248)")
    return "dark" if dark else "light"


def test_pictures_follow_the_scheme_which_is_the_systems_until_chosen_and_remembered(tab, site):
    url = next(url for url in POSTS if site.pages[url].select("article .only-dark"))
    tab.go(url, "dark")
    assert scheme(tab) == "dark"
    tab.page.get_by_role("button", name="Switch between light and dark").click()
    assert scheme(tab) == "light"
    for path in (url, ""):
        tab.go(path, "dark")
        assert scheme(tab) == "light"
    tab.page.get_by_role("button", name="Switch between light and dark").click()
    tab.go("", "light")
    assert scheme(tab) == "dark"


def test_a_block_of_code_can_be_copied(tab, site):
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.go(POSTS[0])
    open_block = "article .language-python:not(details .language-python)"  # the first one that is not folded
    tab.page.locator(open_block).first.get_by_role("button", name="Copy").click()
    expect(tab.page.get_by_role("button", name="Copied")).to_be_visible()
    code = site.pages[POSTS[0]].select_one(open_block).select_one("pre").text
    assert tab.page.evaluate("navigator.clipboard.readText()") == code


def test_without_a_browser_tests_are_skipped_or_fail(monkeypatch):
    monkeypatch.setenv("REQUIRE_BROWSER", "")
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        no_browser("no Chromium")
    monkeypatch.setenv("REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_BROWSER=1, and no Chromium"):
        no_browser("no Chromium")


SURVEY = "posts/TextToImage/"


def test_the_survey_is_sorted_by_its_columns(tab):
    tab.go(SURVEY)
    first = tab.page.locator("table.models tbody tr").first
    by_year, by_size = (tab.page.locator("table.models th button", has_text=name) for name in ("Year", "Parameters"))
    expect(first).to_contain_text("alignDRAW")
    by_year.click()  # up: as it stands
    expect(tab.page.locator("table.models th[aria-sort=ascending]")).to_have_text("Year")
    expect(first).to_contain_text("alignDRAW")
    by_year.click()
    expect(tab.page.locator("table.models th[aria-sort=descending]")).to_have_text("Year")
    expect(first).to_contain_text("2025-09")
    by_size.click()
    by_size.click()  # by number, not by letters: 80 B stands before 8 B
    expect(first).to_contain_text("HunyuanImage 3.0")
    expect(tab.page.locator("table.models th[aria-sort]")).to_have_count(1)


def test_the_survey_is_filtered_by_family_and_words(tab, site):
    tab.go(SURVEY)
    shown, rows = tab.page.locator("table.models tbody tr:visible"), site.pages[SURVEY].select("table.models tbody tr")
    expect(shown).to_have_count(len(rows))
    family = tab.page.get_by_role("combobox", name="Family")
    family.select_option("flow")
    flows = [row for row in rows if row["data-family"] == "flow"]
    expect(shown).to_have_count(len(flows))
    expect(tab.page.locator(".models-filter output")).to_have_text(f"{len(flows)} of {len(rows)} models")
    tab.page.get_by_role("searchbox", name="Words").fill("qwen")
    expect(shown).to_have_count(1)
    family.select_option("GAN")
    expect(shown).to_have_count(0)
    family.select_option("")
    tab.page.get_by_role("searchbox", name="Words").fill("zero-shot generation")  # of the title, which no cell shows
    expect(shown).to_have_count(1)
    expect(shown).to_contain_text("DALL·E")


def test_the_timeline_has_a_mark_for_each_model(site):
    page = site.pages[SURVEY]
    names = [row.select_one("a").text for row in page.select("table.models tbody tr")]
    marks = [mark.text.rpartition(", ")[0] for mark in page.select(".timeline circle title")]
    assert sorted(marks) == sorted(names)
