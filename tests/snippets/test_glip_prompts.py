"""Prompts: spans noted while writing, sub-words as by transformers' tokenizer, phrases over several prompts."""

import pytest
import torch
from transformers import BertTokenizer

from snippets import glip_prompts as page

KNOWN = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] . , a traffic light tooth ##brush ##br ##ush cat ##er ##pill ##ar c ##at red ' s"
)
PIECES = KNOWN.split()
PHRASES = ["traffic light", "toothbrush", "cat", "caterpillar", "red cat's toothbrush"]


@pytest.fixture(scope="module")
def pieces():
    return page.Pieces(PIECES)


def test_spans_are_where_the_phrases_stand():
    for separator in (". ", " . ", ", ", " and "):
        prompt = page.write_prompt(PHRASES, separator)
        assert [prompt.text[a:b] for a, b in prompt.spans] == PHRASES
        assert prompt.text == separator.join(PHRASES)
    assert page.write_prompt([]) == page.Prompt("", [])


@pytest.mark.claim("glip-searched-spans")
def test_a_phrase_that_is_searched_for_is_found_in_another():
    prompt = page.write_prompt(["caterpillar", "cat"])
    start = prompt.text.find("cat")
    assert prompt.spans[1] == (13, 16) and (start, start + 3) == (0, 3)


def test_pieces_and_their_characters_equal_transformers(pieces):
    theirs = BertTokenizer(vocab={piece: i for i, piece in enumerate(PIECES)})
    for text in ("Toothbrush, a cat.", page.write_prompt(PHRASES).text, "toothcat  zebra", "caterpillar's light", ""):
        given = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        ours = pieces(text)
        assert ours.ids == given["input_ids"] and ours.offsets == [tuple(pair) for pair in given["offset_mapping"]]
    assert pieces("toothbrush").ids == [PIECES.index("tooth"), PIECES.index("##brush")]  # the longest first
    assert pieces("zebra cat").ids == [1, PIECES.index("cat")]


def test_a_phrase_owns_its_sub_words_and_no_others(pieces):
    """Each token is compared with transformers' char_to_token for each character of the phrase."""
    prompt = page.write_prompt(PHRASES)
    tokens = pieces(prompt.text)
    said = page.token_map(tokens, prompt.spans)
    given = BertTokenizer(vocab={piece: i for i, piece in enumerate(PIECES)})(prompt.text, add_special_tokens=False)
    for row, (start, end) in zip(said, prompt.spans, strict=True):
        wanted = {given.char_to_token(at) for at in range(start, end)} - {None}
        assert set(row.nonzero()[:, 0].tolist()) == wanted
    assert said.sum(dim=1).tolist() == [2, 2, 1, 4, 6]
    assert said.sum(dim=0).max() == 1 and (said.sum(dim=0) == 0).sum() == 4  # the separators are nobody's
    searched = [(prompt.text.find(phrase), prompt.text.find(phrase) + len(phrase)) for phrase in PHRASES]
    assert (page.token_map(tokens, searched) != page.token_map(tokens, prompt.spans)).any() or searched == prompt.spans


def test_overlapping_and_empty_spans(pieces):
    tokens = pieces("red cat. cat")
    said = page.token_map(tokens, [(0, 7), (4, 7), (7, 7)])
    assert said.int().tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert page.token_map(tokens, []).shape == (0, 4)


@pytest.mark.equation("glip-phrase", of=page.phrase_scores)
def test_a_phrases_probability_is_the_mean_over_its_tokens(formula, pieces):
    prompt = page.write_prompt(PHRASES)
    said = page.token_map(pieces(prompt.text), prompt.spans)
    logits = torch.randn(2, 3, said.shape[1], dtype=torch.float64)
    found = page.phrase_scores(logits.sigmoid(), said)
    own = said[3].nonzero()[:, 0]
    names = {"p_{rk}": found[1, 2, 3], "N_k": len(own), "t": range(len(own))}
    formula("glip-phrase").holds(names | {"S_{rt}": lambda t: logits[1, 2, own[t]]})
    assert found.shape == (2, 3, 5) and len(own) == 4
    torch.testing.assert_close(found[..., 2], logits.sigmoid()[..., said[2].nonzero()[0, 0]])  # one token: its own


def test_phrases_are_packed_into_prompts_and_none_is_cut(pieces):
    many = [*PHRASES, *PHRASES[::-1]]
    for limit in (6, 9, 13, 40):
        parts = page.chunks(pieces, many, limit)
        assert sum(parts, []) == list(range(10))
        lengths = [len(pieces(page.write_prompt([many[i] for i in part]).text).ids) for part in parts]
        assert max(lengths) <= limit and all(parts)
        for part, after in zip(parts, parts[1:], strict=False):  # no room for one more
            assert len(pieces(page.write_prompt([many[i] for i in [*part, after[0]]]).text).ids) > limit
    assert len(page.chunks(pieces, many, 40)) == 1 < len(page.chunks(pieces, many, 9))
    assert page.chunks(pieces, [], 9) == []
    assert len(page.chunks(pieces, many, 13, " . , . ")) > len(page.chunks(pieces, many, 13))
    with pytest.raises(ValueError, match="at most 5 tokens are expected, given \"red cat's"):
        page.chunks(pieces, many, 5)


def test_rows_are_filled_up():
    ids, real = page.batch_tokens([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and real.int().tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("wrong", [["[UNK]", "[PAD]"], ["[PAD]", "a"], ["[PAD]", "[UNK]", "a", "a"]])
def test_a_vocabulary_needs_padding_first(wrong):
    with pytest.raises(ValueError, match=r"\[PAD\] first, \[UNK\], and each piece once"):
        page.Pieces(wrong)
