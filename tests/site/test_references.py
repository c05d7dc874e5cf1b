"""References made of BibTeX, mentions in the text, and how to cite a page."""

import re
from datetime import date

import markdown
import pytest

from theme.around import taken
from theme.page import references
from theme.page.pages import ROOT, posts
from theme.page.source import Source

POSTS = posts()
BIBTEX = r"""@article{b2020x,
  title = {On {GANs}: 15\% of B{\"u}t},
  author = {B{\"u}t, Ann and de Vries, Bo},
  journal = {Letters},
  year = {2020},
  note = {arXiv:2001.00001}
}
@misc{old1982y,
  title = {Old \& True},
  author = {Old, A and B, C and D, E and F, G and H, I},
  year = {1982}
}"""
FENCED = f"## References\n\n```bibtex\n{BIBTEX}\n```\n"


def made(text: str) -> str:
    settings = {"theme.page.extension": {"source": Source(ROOT, "docs/posts/X.md", text, key="X")}}
    names = ["pymdownx.highlight", "pymdownx.superfences", "theme.page.extension"]
    return markdown.markdown(text, extensions=names, extension_configs=settings)


def test_a_list_with_links_is_made_of_bibtex_which_is_folded():
    page = made(FENCED)
    link = '<a href="https://arxiv.org/abs/2001.00001">On GANs: 15% of Büt</a>'
    assert f'<li id="ref-b2020x">Büt and de Vries: {link}, Letters, 2020</li>' in page
    assert '<li id="ref-old1982y">Old and others: <em>Old &amp; True</em>, 1982</li>' in page
    assert "<summary>BibTeX</summary>" in page and r"B{\"u}t, Ann" in page
    assert "ref-" not in made(FENCED.replace("```bibtex", "- Büt: typed, 2020\n\n```bibtex", 1))  # a list is there


def test_mentions_become_links_but_not_in_code_or_for_others():
    text = "See Büt and de Vries (2020), `Büt, 2020`, *x* (Büt et al., 2020; Old, 1982), Büt 2021, [Büt, 2020](#x).\n\n"
    page = made(text + FENCED).partition("<h2")[0]
    cited = re.findall(r'<a class="cited" href="https://arxiv.org/abs/2001.00001">(.*?)</a>', page)
    assert cited == ["Büt and de Vries (2020", "Büt et al., 2020"]
    typed = f"By Song, Meng and Ermon, 2021.\n\n{FENCED}\n- Song, Meng and Ermon: [DDIM](https://x.y/z), 2021\n"
    assert '<a class="cited" href="https://x.y/z">Song, Meng and Ermon, 2021</a>' in made(typed)


@pytest.mark.parametrize("post", POSTS, ids=lambda post: post.key)
def test_references_of_a_post_are_a_list_with_links_and_bibtex(post, site):
    page = site.pages[f"posts/{post.key}/"]
    section = page.find("h2", id="references")
    list_, block = section.find_next("ul"), section.find_next("details")
    entries = references.of_page(post.text)
    assert entries and "BibTeX" in block.summary.text
    assert [one.title for one in entries] == [one.title for one in references.references(block.pre.text)]
    assert not any(re.search(r"[\\{}]", one.title + one.authors) for one in entries)
    if not references.TYPED.search(post.text):
        assert len(list_.find_all("li")) == len(entries)
    assert len(list_.select('a[href^="http"]')) >= len(list_.find_all("li")) / 2
    assert (
        page.select_one(".cite summary").text == "Cite this page"
        and post.meta["title"] in page.select_one(".cite pre").text
    )


def test_how_to_cite_a_page_names_its_address_and_version():
    post = POSTS[0]
    text = taken.citation(post, ROOT, date(2026, 11, 5), "https://x.org/y/")
    for part in (f"url = {{https://x.org/y/posts/{post.key}/}}", "Version of 5 November 2026", "year = {2026}"):
        assert part in text
    assert "url" not in taken.citation(post, ROOT, None, "") and "year" not in taken.citation(post, ROOT, None, "")


@pytest.mark.parametrize("post", POSTS, ids=lambda post: post.key)
def test_confusions_are_questions_under_headings(post):
    section = re.search(r"^## Confusions answered\n(.*?)^## ", post.text, re.M | re.S)[1]
    assert len(re.findall(r"^### ", section, re.M)) >= 1
    assert not re.search(r"^\*\*[^*\n]+\?\*\* ", section, re.M), "write the question as a heading: ### …?"
