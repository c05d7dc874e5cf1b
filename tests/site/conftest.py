"""The site as `mkdocs build --strict` makes it, served on this machine, and a browser that notes what goes wrong."""

import os
import re
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests import building

SOURCE, SPAN = re.compile(r'<pre class="source.*?</pre>', re.S), re.compile("</?span[^>]*>")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


class Pages(Mapping):
    """Each page's HTML by address ("" is home), parsed when a test first asks for it."""

    def __init__(self, folder: Path):
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.html")}
        self.paths = {name.removesuffix("index.html"): paths[name] for name in sorted(paths)}
        self.parsed: dict[str, BeautifulSoup] = {}

    def __getitem__(self, url: str) -> BeautifulSoup:
        if url not in self.parsed:
            text = self.paths[url].read_text(encoding="utf-8")
            if url.startswith("source/"):  # colours aside, of which these pages have most
                text = SOURCE.sub(lambda code: SPAN.sub("", code[0]), text)
            self.parsed[url] = BeautifulSoup(text, "html.parser")
        return self.parsed[url]

    def __iter__(self):
        return iter(self.paths)

    def __len__(self):
        return len(self.paths)


@dataclass(frozen=True)
class Site:
    """A built site: its folder, its pages, and the CPU seconds that the build took."""

    folder: Path
    pages: Pages = field(repr=False)
    seconds: float

    def file(self, path: str) -> Path:
        """The file that a server sends for a path of the site."""
        return self.folder / path / "index.html" if path.endswith("/") or not path else self.folder / path


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    if made := building.built():
        folder, seconds = made
    else:
        folder = tmp_path_factory.mktemp("site")
        seconds = building.build(folder)
    return Site(folder, Pages(folder), seconds)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder as GitHub Pages does: 404.html where there is nothing."""

    def log_message(self, *arguments):
        pass

    def send_error(self, code, *arguments):
        body = Path(self.directory, "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """Says nothing when a browser went away before it had read the answer."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served."""
    with Server(("127.0.0.1", 0), partial(Handler, directory=site.folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def no_browser(why: str):
    """Skip the test, or fail it where REQUIRE_BROWSER=1."""
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, and {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="module")  # Playwright's event loop must not outlive the file: others may start their own
def browser():
    from playwright.sync_api import Error, sync_playwright

    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=installed, args=FLAGS)
        except Error as error:
            no_browser(f"no Chromium starts (see README, Commands): {error.message.splitlines()[0]}")
        yield started
        started.close()


@dataclass
class Tab:
    """A page in the browser, with the requests and errors since it was opened."""

    page: object
    site: Site
    requests: list = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, path: str, scheme: str = "light", width: int = 1280) -> None:
        """Open a page of the site and wait until its fonts are there."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.goto(path)
        self.page.evaluate("document.fonts.ready.then(() => null)")

    def heard(self, message) -> None:
        """Note an error or a warning in the console; that a page which is not there answers 404 is none."""
        missing = message.text.startswith("Failed to load") and message.location["url"] == self.page.url
        if message.type in ("error", "warning") and not missing:
            self.errors.append(f"console: {message.text}")


@pytest.fixture
def tab(browser, address, site):
    """A tab of a new reader."""
    context = browser.new_context(base_url=address)
    context.set_default_timeout(60_000)  # a busy machine is no fault
    tab = Tab(context.new_page(), site)
    tab.page.on("request", lambda request: tab.requests.append(request))
    tab.page.on("console", tab.heard)
    tab.page.on("pageerror", lambda error: tab.errors.append(f"script: {error}"))
    yield tab
    context.close()
