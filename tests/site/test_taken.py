"""What readers and machines take from the site: Markdown, llms.txt, sitemap, tags, licences."""

import re
from datetime import date

import pytest
import yaml

from tests.building import ADDRESS, REPOSITORY
from theme.around import taken
from theme.page.pages import ROOT, posts, program

POSTS = posts()
each_post = pytest.mark.parametrize("post", POSTS, ids=lambda post: post.key)


@each_post
def test_a_post_is_there_as_markdown_with_its_code_and_numbers(post, site):
    text = (site.folder / f"posts/{post.key}/index.md").read_text()
    prose = re.sub(r"^```.*?^```$|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`", "", text, flags=re.S | re.M)
    assert not re.search(r"\{\{|\}\}|--8<--|attachment:|\\label|\]\((?!https?://|#)", prose)
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    lines = {line for block in blocks for line in block.split("\n")}
    assert set(program(post).split("\n")) <= lines
    assert f"# {post.meta['title']}" in text and "**Read first:**" in text
    page = site.pages[f"posts/{post.key}/"]
    assert page.find("link", type="text/markdown")["href"] == "index.md"
    for address in re.findall(r"!\[[^\]]*\]\((.*?)\)", text):
        assert (site.folder / address.removeprefix(ADDRESS)).is_file(), address


@each_post
def test_downloads_say_where_they_are_from_what_they_need_and_their_licence(post, site):
    folder = site.folder / f"posts/{post.key}"
    for ending in ("py", "ipynb"):
        head = (folder / f"{post.name}.{ending}").read_text()[:3000]
        for part in (f"{ADDRESS}posts/{post.key}/", "MIT License", "pip install ", "Copyright (c)", "version of"):
            assert part in head, (ending, part)


def test_the_owner_and_the_licence_are_named_in_one_place(tmp_path):
    (tmp_path / "LICENSE").write_text("x\n\nCopyright (c) 2031 the Others\n")
    assert "2031 the Others. MIT" in "".join(taken.head(POSTS[0], tmp_path, date(2031, 1, 2), ""))
    assert "author = {{The Others}}" in taken.citation(POSTS[0], tmp_path, None, "")
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0" and cff["authors"] and cff["license"] == ["MIT", "CC-BY-4.0"]


def test_machines_find_the_posts_and_labs_and_nothing_else(site):
    told = (site.folder / "llms.txt").read_text()
    assert all(f"({ADDRESS}posts/{post.key}/index.md): " in told for post in POSTS)
    places = re.findall("<loc>(.*?)</loc>", (site.folder / "sitemap.xml").read_text())
    pages = [url for url in site.pages if not url or url.startswith(("posts/", "labs/"))]
    assert sorted(places) == sorted(ADDRESS + url for url in pages)


@each_post
def test_a_post_has_the_tags_of_cards_and_of_citation_managers(post, site):
    page = site.pages[f"posts/{post.key}/"]
    tags = {
        tag.get("property") or tag.get("name"): tag["content"] for tag in page.find_all("meta") if tag.get("content")
    }
    assert tags["og:title"] == tags["citation_title"] == post.meta["title"]
    assert tags["og:url"] == tags["citation_public_url"] == f"{ADDRESS}posts/{post.key}/"
    assert tags["citation_author"] and len(tags["og:description"]) > 50
    assert re.fullmatch(r"\d{4}/\d\d/\d\d", tags["citation_publication_date"])
    if post.meta["picture"]["file"].endswith("png"):
        assert (site.folder / tags["og:image"].removeprefix(ADDRESS)).is_file()


def test_labs_have_a_description_and_pages_lead_to_their_source(site):
    for url in site.pages:
        if url.startswith("labs/"):
            assert len(site.pages[url].find("meta", {"name": "description"})["content"]) > 50, url
    post = POSTS[0]
    links = [link["href"] for link in site.pages[f"posts/{post.key}/"].find_all("a", href=True)]
    assert f"{REPOSITORY}/edit/HEAD/docs/posts/{post.key}.md" in links
    assert f"{REPOSITORY}/blob/HEAD/{post.meta['module']}" in links
    notebook = f"posts/{post.key}/{post.name}.ipynb"
    colab = "https://colab.research.google.com/github/"
    assert f"{colab}{REPOSITORY.removeprefix('https://github.com/')}/blob/notebooks/{notebook}" in links
    assert (site.folder / notebook).is_file()
    assert any(link.startswith(f"{REPOSITORY}/issues/new?title=Mistake") for link in links)
    assert "page here" in site.pages["404.html"].title.text
