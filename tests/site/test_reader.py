"""A page as its reader meets it: nothing jumps, print is right, no button is dead, numbers tell where they come from."""

import gzip
import re
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect

from tests.site.test_browser import POSTS, SETTLED

SHIFT = """() => new Promise((done) => new PerformanceObserver((list) =>
    done(list.getEntries().reduce((sum, { value, hadRecentInput }) => sum + (hadRecentInput ? 0 : value), 0))
  ).observe({ type: "layout-shift", buffered: true }) ?? setTimeout(() => done(0), 1500))"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("url", ["", POSTS[1], POSTS[-1]])
def test_nothing_jumps_while_a_page_loads(url, width, tab):
    tab.go(url, width=width)
    tab.page.mouse.wheel(0, 1500)
    tab.page.evaluate(SETTLED)
    assert tab.page.evaluate(SHIFT) <= 0.05


def test_print_has_every_font_of_formulas_and_what_is_folded(tab, site):
    url = next(url for url in POSTS if "delimsizing size3" in site.file(url).read_text())
    tab.go(url)
    tab.page.mouse.move(20, 20)  # fonts of formulas off screen come when the reader does anything
    tab.page.wait_for_function(
        "() => [...document.fonts].every((face) => !face.family.includes('KaTeX') || face.status == 'loaded')"
    )
    printed = tab.page.pdf()
    assert {b"KaTeX_Size1", b"KaTeX_Size3", b"KaTeX_Main"} <= set(re.findall(rb"KaTeX_\w+", printed))


def test_without_scripts_no_button_is_dead(browser, address):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto(POSTS[0])
    for button in ("#search-button", "#palette-button", ".copy"):
        assert not page.locator(button).first.is_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="Contents").click()  # which needs no script
    expect(page.locator("#contents a").first).to_be_visible()
    context.close()


def test_a_number_tells_by_key_and_touch_where_it_comes_from(tab):
    tab.go(POSTS[0], width=390)
    number = tab.page.locator("article .result").first
    assert number.evaluate("(it) => getComputedStyle(it, '::after').content") == "none"
    number.focus()
    told = number.evaluate("(it) => getComputedStyle(it, '::after').content")
    assert number.get_attribute("title") in told and "run of" in told


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_view_of_the_index_weighs_at_most_300_kib_with_its_pictures(width, tab, site):
    tab.go("", width=width)
    tab.page.wait_for_load_state("networkidle")
    files = {site.file(unquote(urlsplit(one.url).path).lstrip("/")) for one in tab.requests}
    sizes = {file.relative_to(site.folder).as_posix(): len(gzip.compress(file.read_bytes())) for file in files}
    assert any(name.startswith("figures/") for name in sizes) and sum(sizes.values()) <= 300 * 1024, sizes
