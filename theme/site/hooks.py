"""MkDocs' events: which pages there are, and what stands around their text (`theme.page.extension` has the text)."""

import gc
import html
import logging
import re
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import AnchorLink, get_toc

# so that plain `mkdocs` finds the package, as `python -m mkdocs` does
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from markdown.extensions.toc import slugify

from theme.around import cards, header, paths, report, taken
from theme.page import checks, equations, exercises, late, listings, live, marks, maths, notebook, pages, reading, records, survey
from theme.site import labs, policy, search
from theme.around.dates import head, last_change
from theme.page.source import Source, SourceError, relative

ASSETS = "assets/verbatim"
SOURCES = "source/"
KINDS = {"posts": search.POST, "labs": search.LAB, "source": search.SOURCE}
SHOWN = ("snippets", "docs/results", "docs/figures")  # what a notebook shows besides its text


class Build:
    """What one build knows of the repository; wrong: every mistake that would make a page come out wrong, a line each."""

    def __init__(self, root: Path):
        self.root, self.posts, self.equations, self.wrong = root, {}, {}, ""
        self.written: dict[str, str] = {}  # files that are no pages, by path
        self.searched = {}  # kind, title, badge and HTML of each page by its address
        self.commit, self.report = head(root), report.load(root)
        try:
            self.posts = {post.key: post for post in pages.posts(root)}
            self.wrong = "\n".join(problem for check in checks.SITE.values() for problem in check(root))
            self.equations = {mark.id: mark for mark in equations.equations(list(self.posts.values()), root)}
            self.tests = {kind: marks.tests(root, kind) for kind in ("equation", "claim")}  # path and line by id
        except SourceError as error:
            self.wrong = str(error)


build: Build | None = None
serving = False
log = logging.getLogger("mkdocs.plugins.verbatim")


def told(wrong: str) -> str:
    """What a contributor sees in the browser where a page would be wrong."""
    return f'<h1>Not built</h1>\n<pre class="problems" role="alert">{html.escape(wrong)}</pre>'


def on_startup(command: str, dirty: bool) -> None:
    """Remember whether pages are served: live reload's own script would not pass the policy."""
    global serving
    serving = command == "serve"
    if not serving:
        gc.disable()  # a build ends soon, and to look for garbage takes a tenth of its time


def on_config(config):
    """Read the posts; navigation in the order in which they can be read; the site's own Markdown extension."""
    global build
    root = Path(config.config_file_path).resolve().parent
    build = Build(root)
    if build.wrong and not serving:
        raise SourceError(build.wrong)
    if build.wrong:
        log.error(build.wrong)
        return config  # the browser shows it instead of each page
    config.nav = [{"Home": "index.md"}]
    for name, row in reading.ordered(list(build.posts.values())).items():
        config.nav += [{name: [f"posts/{post.key}.md" for post in row]}] if row else []
    for title, path in (("How it is verified", "verified.md"), ("Contributing", "contributing.md")):
        if (root / "docs" / path).is_file():
            config.nav.append({title: path})
    config.mdx_configs["pymdownx.snippets"] = {**pages.SNIPPET_OPTIONS, "base_path": [str(root)]}
    config.markdown_extensions += [name for name in ("theme.page.extension",) if name not in config.markdown_extensions]
    return config


def on_files(files: Files, config) -> Files:
    """Add what is made rather than written: styles, starters of exercises, source pages."""
    root = build.root
    for file in list(files):
        if file.src_uri.startswith("assets/") and file.src_dir != config.docs_dir:
            files.remove(file)  # Material's own styles and scripts, which no page loads

    def add(uri: str, **content) -> None:
        files.append(File.generated(config, uri, **content))

    add(f"{ASSETS}/katex/katex.min.css", content=maths.stylesheet())
    for asset in sorted((root / "theme/assets").glob("*")):
        add(f"{ASSETS}/{asset.name}", abs_src_path=str(asset))
    for asset in sorted((root / "theme/live").glob("*")):
        add(f"{ASSETS}/live/{asset.name}", abs_src_path=str(asset))
    for address, path in live.packages(root / "theme/packages.txt"):
        add(f"{ASSETS}/{address}", abs_src_path=str(pages.ROOT / "node_modules" / path))
    for key, post in build.posts.items() if not build.wrong else ():
        if (root / exercises.path_of(post)).is_file():
            add(f"posts/{key}/{post.name}_exercises.py", content=exercises.starter(post, root))
        if program := live.made(post, root):
            add(f"live/{key}/code.py", content=program)
        if models := survey.path_of(post):
            add(f"posts/{key}/models.bib", content=survey.bibtex(survey.read(models)))
    for path in sorted(listings.source_files(root)):
        add(f"{SOURCES}{path}.md", content=f"---\ntitle: {path}\n---\n")
    return files


def on_nav(nav, config, files):
    """Previous and next page are the neighbours on a post's path, of which each stands after those that it needs."""
    for page in nav.pages:
        page.previous_page = page.next_page = None
    for section in nav.items if not build.wrong else ():
        for page, other in pairwise(section.children or ()):
            page.next_page, other.previous_page = other, page
    return nav


_made: dict[tuple, tuple[str, str, str]] = {}  # programs and notebooks, made again only when something has changed


def on_env(env, config, files: Files) -> None:
    """Add what is made of all pages, once they are right: fonts of the formulas, each post's program and notebook."""
    env.globals["badges"] = header.badges  # for the page that says that an address has none
    if build.wrong:
        return
    for name, font in maths.fonts().items():
        files.append(File.generated(config, f"{ASSETS}/katex/fonts/{name}", content=font))
    root, url = build.root, config.site_url or ""
    paths = [path for folder in SHOWN for path in (root / folder).rglob("*") if path.is_file()]
    versions = tuple(sorted((path, path.stat().st_mtime_ns) for path in paths))
    numbers = tuple((name, equation.number) for name, equation in build.equations.items())
    for key, post in build.posts.items():
        state = key, post.text, str(post.meta["title"]), url, hash(versions), hash(numbers)
        if state not in _made:
            day = last_change(root, build.commit, header.paths_shown(post, root))
            said, book = taken.head(post, root, day, url), notebook.notebook(post, root, build.equations, url)
            _made[state] = (
                taken.with_head(pages.program(post, root), said),
                taken.with_head_and_pictures(book, said, post, root),
                taken.as_markdown(book, post, url),
            )
        name = f"posts/{key}/{post.name}"
        for ending, content in zip(("py", "ipynb"), _made[state][:2], strict=True):
            files.append(File.generated(config, f"{name}.{ending}", content=content))
        build.written[f"posts/{key}/index.md"] = _made[state][2]
    summaries = [(post, cards.summary(post, root)) for post in build.posts.values()]
    build.written["llms.txt"] = taken.llms(summaries, config.site_description, url)


def on_pre_page(page: Page, config, files) -> Page:
    """Labs are rendered like every other page; source pages hold their code as it is."""
    uri = page.file.src_uri
    if uri.endswith(".ipynb"):
        page.__dict__.pop("render", None)  # mkdocs-jupyter's, which brings its own styles, scripts and formulas
    elif uri.startswith(SOURCES):
        page.render = lambda config, files: _render_source(page, uri.removeprefix(SOURCES).removesuffix(".md"))
    elif serving:
        page.render = partial(_render_or_tell, page, page.render)
    return page


def _render_or_tell(page: Page, render, config, files) -> None:
    """While pages are served, a mistake is shown in the browser and the server goes on."""
    try:
        render(config, files)
    except SourceError as error:
        log.error(error)
        page.content, page.toc, page.present_anchor_ids = told(str(error)), get_toc([]), set()


def _render_source(page: Page, path: str) -> None:
    body, count = listings.source_html(build.root / path)
    owners = [(post.meta["title"], f"posts/{key}/") for key, post in build.posts.items() if post.meta["module"] == path]
    links = [f'<a href="{relative(url, page.url)}">{html.escape(title)}</a>' for title, url in owners]
    page.content = (f"<p>The code of {', '.join(links)}.</p>" if links else "") + body
    page.toc = get_toc([])
    page.present_anchor_ids = {f"L{number}" for number in range(1, count + 1)}


def on_page_markdown(markdown: str, page: Page, config, files) -> str:
    """Tell the extension which page it converts; a lab's notebook becomes Markdown here."""
    if build.wrong:
        return ""
    root, uri = build.root, page.file.src_uri
    path, blocks, cells, first_line = f"docs/{uri}", {}, (), 1
    if uri.endswith(".ipynb"):
        markdown, blocks, cells = labs.read(root / path)
        page.meta = {"summary": labs.summary(root / path)}
    elif (root / path).is_file():
        whole = (root / path).read_text(encoding="utf-8")
        first_line += whole.count("\n", 0, max(whole.find(markdown), 0))
    posts = list(build.posts.values())
    if page.is_homepage:
        blocks = {
            "cards": cards.cards(posts, root, page.url, build.commit),
            "paths": paths.paths(posts, root, page.url),
        }
    key = uri.removeprefix("posts/").removesuffix(".md")
    key = key if uri.startswith("posts/") else None
    if key:
        markdown = reading.filled(markdown, build.posts[key], posts)
        page.meta["changed"] = last_change(root, build.commit, header.paths_shown(build.posts[key], root))
        page.meta["summary"] = cards.summary(build.posts[key], root)
        blocks = records.blocks(build.posts[key], root, page.url)
        if models := survey.path_of(build.posts[key]):
            blocks |= {"models": survey.table(survey.read(models)), "timeline": survey.timeline(survey.read(models))}
    about = {"blocks": blocks, "cells": cells, "equations": build.equations, "tests": build.tests}
    source = Source(root, path, markdown, first_line, page.url, key, **about)
    config.mdx_configs["theme.page.extension"] = {"source": source}
    return markdown


def on_page_content(content: str, page: Page, config, files) -> str:
    """Badges above the heading; date, Verified panel and downloads below it."""
    if build.wrong:
        return told(build.wrong)
    above, below, end = _header(page, config)
    kind = KINDS.get(page.file.src_uri.partition("/")[0], search.PAGE)
    if kind != search.SOURCE and not page.is_homepage:
        badge = " ".join(map(str, (page.meta.get("badge") or {}).values())).replace("_", " ")
        build.searched[page.url] = kind, str(page.meta.get("title") or page.title), badge, content
    content = content.replace(' <a class="claim"', '<a class="claim"')  # no line begins with a mark
    page.present_anchor_ids |= set(re.findall(r'<div id="(code-[\w-]+)"', content))  # blocks, for links to them
    if not content.lstrip().startswith("<h1"):
        title = html.escape(page.meta.get("title") or page.title)
        content = f'<h1 id="{slugify(title, "-")}">{title}</h1>\n{content}'
    heading, close, rest = content.partition("</h1>")
    text = f'<div class="lab">{rest}</div>' if page.file.src_uri.endswith(".ipynb") else rest
    if 'id="verified"' in end:
        top = page.toc.items
        sections = top[0].children if len(top) == 1 and top[0].level == 1 else top
        sections.append(AnchorLink("Verified", "verified", 2))
    return above + heading + close + below + text + end


def _header(page: Page, config) -> tuple[str, str, str]:
    """What stands above and below the heading, and at the end."""
    uri, root, commit = page.file.src_uri, build.root, build.commit
    folder, _, name = uri.partition("/")
    key = name.rpartition(".")[0]
    if folder == "posts":
        place = config.site_url or "", config.extra.get("repository") or ""
        return header.of_post(build.posts[key], root, commit, build.report, *place)
    if folder == "labs":
        return *header.of_lab(key, build.posts.get(key), root, commit), ""
    if folder == SOURCES.rstrip("/"):
        return header.badges(relative("", page.url)), "", ""
    paths = [f"docs/{uri}"]
    if page.is_homepage:
        paths += [path for post in build.posts.values() for path in header.paths_shown(post, root)]
    return header.badges(relative("", page.url)), header.page_date(last_change(root, commit, paths)), ""


def on_post_page(output: str, page: Page, config) -> str:
    """Put formulas and code in."""
    return late.insert(output)


def on_post_build(config) -> None:
    """Write what is no page, keep highlighted code, put the Content-Security-Policy into every page."""
    listings.python_lines.save()
    build.written["search/index.json"] = search.entries(build.searched, build.root)
    for name, content in build.written.items():
        file = Path(config.site_dir) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    if not serving:
        policy.protect(Path(config.site_dir))
