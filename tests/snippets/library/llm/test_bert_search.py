"""The page's search with real weights: the vectors of sentence-transformers, and what it finds."""

import re

import pytest
import torch

from snippets.library.llm import bert_search as page
from theme.page.pages import ROOT

ASKED = re.compile(r"^\| \*(?P<question>[^|*]+)\* \| \*(?P<found>[^|*]+)\* \|$", re.M)


def model_and_tokenizer():
    pieces = (page.FOLDER / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return page.load_bert(str(page.FOLDER))["bert"], page.WordPiece(pieces)


def test_vectors_equal_sentence_transformers(agrees):
    texts = ["It is closed.", "Return a new list, and sort it if `key` is given!", "naïve 日本"]
    bert, wordpiece = model_and_tokenizer()
    ours, theirs = page.vectors(bert, wordpiece, texts), page.vectors_by_sentence_transformers(texts)
    agrees(ours, theirs, "sentence_transformers.SentenceTransformer")
    assert page.SentenceTransformer(str(page.FOLDER), device="cpu").max_seq_length == 256  # the page says so
    first = [torch.nn.functional.normalize(bert(page_tokens)[:, 0]) for page_tokens in rows(wordpiece, texts)]
    assert (torch.cat(first) - theirs).abs().max() > 1e-2  # negative control: the vector of [CLS]


def rows(wordpiece, texts):
    return [torch.tensor([[101, *wordpiece.encode(text), 102]]) for text in texts]


@pytest.mark.claim("bert-search-code")
def test_the_example_finds_what_the_page_says():
    text = (ROOT / "docs/posts/LLM/BERT.md").read_text(encoding="utf-8")
    rows_of_table = [(m["question"], m["found"]) for m in ASKED.finditer(text)]
    assert len(rows_of_table) == 4
    texts = sorted({found for _, found in rows_of_table})
    assert len(texts) == 4
    for question, found in rows_of_table:
        assert page.search(question, texts) == [found]
        words = [set(re.findall(r"\w{3,}", part.lower())) for part in (question, found)]
        assert not words[0] & words[1], question  # "no word of three letters or more in common"
    assert page.search(rows_of_table[0][0], texts, 4)[0] == rows_of_table[0][1]
    assert sorted(page.search(rows_of_table[0][0], texts, 4)) == texts
