"""Live figures in a real browser: equal to Python on the same noise, sound in each state, and nothing before a click."""

import gzip
import json
import re

import pytest
from playwright.sync_api import expect

from tests.live.test_machinery import FIGURES, module, scaled
from tests.site.test_browser import LOAD_AXE, SETTLED, UNREACHABLE, WIDE
from theme.page import live
from theme.page.pages import ROOT

BUTTON, RAN = "live-figure .live-bar button", "live-figure:is([data-state=done], [data-state=error])"
SET = """(figure, values) => {
  [...figure.querySelectorAll("button")].find((one) => one.textContent === "Reset").click();
  for (const [label, value] of Object.entries(values)) {
    const control = [...figure.querySelectorAll("label")].find((one) => one.textContent === label).control;
    control.value = control.type === "range" ? value.index : value;
    for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind, {bubbles: true}));
  }
}"""
TEXTS = """(figure, label) => {
  const control = [...figure.querySelectorAll("label")].find((one) => one.textContent === label).control;
  if (control.type !== "range") return null;
  const before = control.value, texts = [];
  for (control.value = 0; texts.length <= Number(control.max); control.value++) {
    control.dispatchEvent(new Event("input"));
    texts.push(control.getAttribute("aria-valuetext"));
  }
  control.value = before;
  control.dispatchEvent(new Event("input"));
  return texts;
}"""
SOUND = """async () => (await axe.run("live-figure", {resultTypes: ["violations"]})).violations
  .flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html.slice(0, 200)}`))"""


def opened(tab, key: str) -> None:
    """Open a post, with nothing below its heading but the figure, which is all that is looked at."""
    address = f"posts/{key}/"
    text = tab.site.file(address).read_text(encoding="utf-8")
    figure = text[text.index("<live-figure") : text.index("</live-figure>")]
    text = f"{text[: text.index('</h1>')]}</h1>{figure}</live-figure>{text[text.index('</article>') :]}"
    tab.page.route(f"**/{address}", lambda route: route.fulfill(body=text, content_type="text/html"))
    tab.go(address)
    expect(tab.page.locator("live-figure[data-state=idle]")).to_have_count(1)


def ran(tab) -> str:
    """Wait for the end of a run: its state."""
    tab.page.wait_for_selector(RAN, timeout=180_000)
    return tab.page.locator("live-figure").get_attribute("data-state")


def set_to(tab, values: dict) -> None:
    """Reset, then set controls by their labels; of a slider, to the place whose text is the value."""
    figure, places = tab.page.locator("live-figure"), {}
    for label, value in values.items():
        texts = figure.evaluate(TEXTS, label)
        places[label] = {"index": texts.index(str(value))} if texts else str(value)
    figure.evaluate(SET, places)


def distance(ours, theirs) -> float:
    """Between two results: the largest difference of numbers, infinite where anything else differs."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return max((distance(ours[name], theirs[name]) for name in ours), default=0.0)
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return max((distance(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    if isinstance(ours, int | float) and isinstance(theirs, int | float) and not isinstance(ours, bool):
        return abs(ours - theirs)
    return 0.0 if ours == theirs else float("inf")


def difference(tab, case: dict, reference) -> float:
    """The figure's result from Python's, for what its controls say."""
    return distance(tab.page.locator("live-figure").evaluate("figure => figure.result"), reference(case))


def sound(tab) -> list[str]:
    """What axe finds in the figure, and what is wider than the page, in both looks and on a telephone."""
    found = []
    for scheme, width in (("light", 1280), ("dark", 390)):
        tab.page.emulate_media(color_scheme=scheme)
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.page.evaluate(SETTLED)
        found += [fault for kind in (SOUND, WIDE, UNREACHABLE) for fault in tab.page.evaluate(kind)]
    return found


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_computes_what_python_computes(key, tab):
    side = module(key)
    opened(tab, key)
    tab.page.wait_for_load_state("networkidle")
    before = [one.url for one in tab.requests if re.search(r"/live/", one.url)]
    assert not before, f"loaded before a click: {before}"
    tab.page.locator(BUTTON).first.click()
    assert ran(tab) == "done", tab.page.locator("live-figure [role=status]").inner_text()
    for case in side.CASES:
        set_to(tab, case)
        assert ran(tab) == "done"
        assert difference(tab, case, side.reference) <= getattr(side, "TOLERANCE", 1e-4), case
    tab.page.evaluate(LOAD_AXE)
    found = sound(tab)
    assert not found and not tab.errors, "\n".join(found + tab.errors)
    assert {one.url.split("/")[2] for one in tab.requests if one.url.startswith("http")} == {tab.page.url.split("/")[2]}
    tab.page.get_by_role("button", name="Reset").click()
    assert ran(tab) == "done" and distance(side.reference({}), tab.page.locator("live-figure").evaluate("f => f.result")) <= 1e-4


@pytest.mark.parametrize("key", FIGURES)
def test_the_first_view_is_at_most_5_kib_heavier(key, site):
    """The script, the element's attributes, and the figure's part of the stylesheet."""
    (element,) = site.pages[f"posts/{key}/"].select("live-figure")
    parts = {name: (ROOT / f"theme/assets/{name}").read_text(encoding="utf-8") for name in ("live.js", "verbatim.css")}
    own = [line for line in parts["verbatim.css"].split("\n") if "live-" in line]
    texts = [parts["live.js"], *own, *map(str, element.attrs.items())]
    assert own and len(gzip.compress("\n".join(texts).encode())) < 5 * 1024
    for name in json.loads(element["data-files"]) | {element["data-script"]: 0}:
        assert site.file(name).is_file(), f"{name} is not published"


@pytest.mark.parametrize("key", FIGURES)
def test_a_faulty_figure_is_noticed(key, tab):
    """A sign, or a word, of the script turned; where there is a network, one table of its weights scaled by 1.01."""
    side, case = module(key), module(key).CASES[-1]
    old, new = side.FAULT
    sections = live.figure(FIGURES[key])["code"]
    code = live.made(FIGURES[key]) if sections else (ROOT / f"docs/live/{key}.js").read_text(encoding="utf-8")
    assert code.count(old) == 1 and (len(old) == len(new) or not sections)
    name = f"live/{key}/code.py" if sections else f"live/{key}.js"
    kind = "text/x-python" if sections else "text/javascript"
    tab.page.route(f"**/{name}", lambda route: route.fulfill(body=code.replace(old, new), content_type=kind))
    faults = ["fault"]
    loaded = [ROOT / "docs" / name for name in live.files(key, sections, ROOT, live.figure(FIGURES[key])["others"])]
    weights = [path for path in loaded if path.suffix == ".onnx" and b".half" in path.read_bytes()]
    if weights:
        faults.append("weight")
    for fault in faults:
        if fault == "weight":
            tab.page.unroute(f"**/{name}")
            path = max(weights, key=lambda one: one.stat().st_size)
            data = scaled(path.read_bytes(), 1.01)
            tab.page.route(f"**/{path.name}", lambda route: route.fulfill(body=data))
        opened(tab, key)
        tab.page.locator(BUTTON).first.click()
        assert ran(tab) == "done"
        set_to(tab, case)
        assert ran(tab) == "done"
        assert difference(tab, case, side.reference) > 2 * getattr(side, "TOLERANCE", 1e-4), fault


def test_a_figure_is_sound_in_every_state(tab):
    """While it loads (a progress bar), with a file missing or damaged, and by keyboard."""
    held = []
    tab.page.route("**/unet.onnx", lambda route: held.append(route))
    opened(tab, "Diffusion")
    tab.page.evaluate(LOAD_AXE)
    assert not sound(tab)
    tab.page.locator(BUTTON).focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("progressbar", name="Loading")).to_be_visible()
    assert tab.page.locator("live-figure").get_attribute("data-state") == "loading" and not sound(tab)
    tab.page.wait_for_timeout(100)
    expect(tab.page.locator("live-figure img:visible")).to_have_count(1)  # the picture stays until there is more
    held[0].abort()
    expect(tab.page.locator("live-figure[data-state=error] [role=status]")).to_contain_text("unet.onnx is missing")
    assert not sound(tab)
    tab.page.unroute("**/unet.onnx")
    tab.page.route("**/unet.onnx", lambda route: route.fulfill(body=b"\0" * 839276))
    tab.page.locator(BUTTON).click()
    expect(tab.page.locator("live-figure[data-state=error] [role=status]")).to_contain_text("unet.onnx is damaged", timeout=60_000)
    expect(tab.page.locator("live-figure img:visible")).to_have_count(1)
    tab.page.unroute("**/unet.onnx")
    tab.page.locator(BUTTON).click()
    assert ran(tab) == "done"
    expect(tab.page.locator("live-figure img:visible")).to_have_count(0)
    steps = tab.page.get_by_role("slider", name="Steps")
    steps.focus()
    tab.page.keyboard.press("ArrowLeft")
    assert steps.get_attribute("aria-valuetext") == "10" and ran(tab) == "done"
    expect(tab.page.locator("live-figure [role=status]")).to_contain_text("after 10 steps")
    for _ in range(9):
        tab.page.keyboard.press("ArrowRight")
    tab.page.get_by_role("button", name="Stop").click()
    expect(tab.page.locator("live-figure[data-state=done] [role=status]")).to_have_text("Stopped.")
    tab.page.emulate_media(media="print")
    expect(tab.page.locator("live-figure img:visible")).to_have_count(1)
    expect(tab.page.locator(".live-stage:visible, .live-controls:visible, .live-bar:visible")).to_have_count(0)


def test_without_webassembly_the_picture_stays_and_a_line_says_why(tab):
    tab.page.add_init_script("delete globalThis.WebAssembly")
    opened(tab, "Diffusion")
    tab.page.locator(BUTTON).click()
    expect(tab.page.locator("live-figure[data-state=error] [role=status]")).to_contain_text("no WebAssembly")
    expect(tab.page.locator("live-figure img:visible")).to_have_count(1)


def test_without_scripts_the_figure_is_the_labs_picture(browser, address):
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("posts/Diffusion/")
    expect(page.locator("live-figure img:visible")).to_have_count(1)
    expect(page.locator("live-figure button")).to_have_count(0)
    context.close()


def test_the_same_seed_draws_the_same_numbers_in_browser_and_python(tab):
    from tools.live import normal, uniform

    tab.go("posts/Diffusion/")
    for name, ours in (("normal", normal), ("uniform", uniform)):
        code = f"async () => Array.from((await import('/assets/verbatim/live/noise.js')).{name}(4000000000, 5, 1001))"
        assert distance(tab.page.evaluate(code), ours(4_000_000_000, 5, 1001).tolist()) < 1e-6
    assert normal(4_000_000_000, 5, 1001).std() > 0.9
