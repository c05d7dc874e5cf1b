"""What the text names leads to it, and abbreviations say what they are."""

import re
import sysconfig
from pathlib import Path

import pytest

from theme.page import named
from theme.page.pages import ROOT, posts

PACKAGES = Path(sysconfig.get_paths()["purelib"])
POSTS = posts(ROOT)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
CAMEL = re.compile(r"[A-Z]\w*[a-z]\w*[A-Z]\w*")
PYTORCH_HAS = {"DistributedDataParallel", "DistributedSampler", "OneCycleLR", "IndexError"}  # named in passing, of PyTorch and of Python


@pytest.mark.parametrize("line", named.CLASSES.strip().splitlines())
def test_the_installed_library_defines_each_class_where_its_link_leads(line):
    path, _, names = line.partition(": ")
    text = (PACKAGES / path).read_text(encoding="utf-8")
    for name in names.split():
        assert re.search(rf"^(class|def) {name}\b", text, re.M), f"{path} does not define {name}"
        package, _, rest = path.partition("/")
        assert named.classes()[name].startswith(named.SOURCES[package].partition("{")[0])
        assert named.classes()[name].endswith(f"/{rest}#:~:text={name}")


@pytest.mark.parametrize("post", POSTS, ids=lambda post: post.key)
def test_each_class_that_a_post_names_has_a_link(post, site):
    prose = re.sub(r"^```.*?^```[ \t]*$", "", post.text, flags=re.S | re.M)
    wanted = {span for span in SPAN.findall(prose) if CAMEL.fullmatch(span)} - PYTORCH_HAS
    page = site.pages[f"posts/{post.key}/"]
    linked = {link.get_text() for link in page.select("article a code")}
    headings = {code.get_text() for code in page.select("article :is(h1, h2, h3, h4) code")}
    assert wanted <= linked | headings, f"{wanted - linked - headings}: add them to theme/page/named.py"


def test_a_function_of_the_page_leads_to_its_block_and_no_exercise_to_its_solution(site):
    page = site.pages["posts/Diffusion/"]
    links = {link.get_text(): link["href"] for link in page.select("article a.named")}
    assert links["sample_ddim"] == "#code-ddpm-ddim" and page.find(id="code-ddpm-ddim")
    assert not any("exercise" in address for address in links.values())
    assert links["torch.randn"].endswith("?q=torch.randn")


def test_abbreviations_are_explained_where_a_page_has_them_first(site):
    for post in POSTS:
        found = site.pages[f"posts/{post.key}/"].select("article abbr")
        names = [one.get_text() for one in found]
        assert len(names) == len(set(names)) and all(one["tabindex"] == "0" for one in found)
        assert all(one["title"] == named.ABBREVIATIONS[one.get_text()] for one in found)
    assert sum(bool(site.pages[f"posts/{post.key}/"].select("article abbr")) for post in POSTS) >= 15


def test_plain_words_and_parts_of_words_are_left_alone():
    known = {"drop": "#code-cfg-drop", "load_clip": "#code-clip-load", "DDIMScheduler": "there"}
    assert named.address_of("drop", known) == "" and named.address_of("drop(x)", known) == "#code-cfg-drop"
    assert named.address_of("load_clip", known) == "#code-clip-load"
    assert named.address_of("DDIMScheduler.from_pretrained", known) == "there"
    assert named.address_of("my_load_clip", known) == named.address_of("load_clip.x", known) == ""
