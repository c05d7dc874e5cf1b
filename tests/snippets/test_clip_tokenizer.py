"""CLIP's tokenizer against transformers', given the same merges, on odd strings; merges, files, refusals."""

import inspect
import json
import random

import pytest
import tokenizers
from transformers import CLIPTokenizer
from transformers.models.clip import tokenization_clip

from snippets import clip_tokenizer as page

PROSE = (
    "A photo of a cat isn't it, a dog and the photos of cats here! We've seen the enemy, oh my, a myth, the hat, at 12 "
)
ODD = [
    "A Photo of a CAT's  dog, isn't it? 12 345 ²Ⅷ½",
    "Σίσυφος ΣΑΣ İstanbul Straße",
    "e\u0301cole café naïve \u0301x \u0301",
    "hello!!! :) <|endoftext|> x <|startoftext|>y",
    "日本語 emoji 👩‍👩‍👧 ok",
    "a\x1cb\x85c\u200bd\u3000e\u180ef",
    "'s 'll'd we've I'M don''t ''s",
    "_under_score __init__",
    "",
    "   ",
    "<|EndOfText|>",
    "a</w>b </w>",
    "ﬁ ǅ Ω K",
    "१२३ ٣٤ ᏣᎳᎩ ꭰ",
    "tab\tline\nend \r\n . . .",
]


@pytest.fixture(scope="module")
def ours():
    return page.ClipTokenizer(page.learn_merges([PROSE, *ODD], 150))


@pytest.fixture(scope="module")
def folder(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    page.save_clip_tokenizer(ours, path)
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", [PROSE, *ODD])
def test_ids_equal_transformers(text, ours, theirs, agrees):
    agrees(ours.encode(text), theirs(text)["input_ids"], "transformers.CLIPTokenizer")
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)


def test_ids_equal_transformers_on_random_strings(ours, theirs):
    letters = "aAbcdehimnopty 's't!?.,12²Éé\u0301ß日👩\n\t_<|>/w'"
    for seed in range(300):
        text = "".join(random.Random(seed).choices(letters, k=25))
        assert ours.encode(text) == theirs(text)["input_ids"], text


def test_without_the_mark_of_the_last_letter_ids_differ(ours, theirs):
    """Negative control: pieces merged as GPT-2 does, without </w>."""
    without = page.merge(tuple("cat"), ours.ranks)
    assert [ours.ids["".join(piece)] for piece in without] != theirs("cat")["input_ids"][1:-1]
    assert len(theirs("cat")["input_ids"]) == 3


def test_batches_equal_transformers(ours, theirs):
    texts = [PROSE, "a cat", ""]
    expected = theirs(texts, padding=True, return_tensors="pt")["input_ids"]
    assert ours(texts).equal(expected)
    assert ours(texts)[1, 4:].unique().tolist() == [ours.end]
    assert ours.end == max(ours.ids.values()) and ours.start == ours.end - 1
    for wrong in ([], [PROSE]):
        with pytest.raises(ValueError, match="texts of 1 to 20 tokens are expected"):
            ours(wrong, context=20)
    assert len(ours(["a cat"] * 2, context=4)) == 2


@pytest.mark.claim("clip-end-of-word")
def test_a_piece_at_the_end_of_a_word_is_another_piece(ours):
    """The page's confusion: "my" of "myth" and the word "my" have nothing in common."""
    whole, inside = ours.pieces("my"), ours.pieces("myth")
    assert whole == ["my</w>"] and inside[0] != "my</w>"
    assert ours.ids["m"] != ours.ids["m</w>"]


@pytest.mark.claim("clip-no-limit")
def test_a_fresh_tokenizer_of_transformers_has_no_limit(theirs):
    """The page's confusion: 77 tokens is a limit of the model; a tokenizer made from files alone knows none."""
    assert len(theirs(PROSE * 20)["input_ids"]) > 400
    assert theirs.model_max_length > 1e9


@pytest.mark.claim("clip-no-repair")
def test_the_librarys_tokenizer_repairs_nothing(ours, theirs):
    """The page's confusion: OpenAI's code calls ftfy and html.unescape first; the installed one does not."""
    source = inspect.getsource(tokenization_clip)
    assert "ftfy" not in source and "unescape" not in source
    for broken, whole in (("cafÃ©", "café"), ("a &amp; b", "a & b")):
        assert theirs(broken)["input_ids"] == ours.encode(broken) != ours.encode(whole)


def test_merges_join_the_most_frequent_pair():
    """By counting all pairs of the words as they are after each merge."""
    texts = [PROSE * 2, "the cat sat on the mat"]
    merges = page.learn_merges(texts, 40)
    assert len(merges) == len(set(merges)) == 40
    spelt = [list(page.letters(word)) for text in texts for word in page.words(text)]
    for merge in merges:
        counts = {}
        for word in spelt:
            for pair in zip(word, word[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        assert counts[merge] == max(counts.values())
        assert merge == min(pair for pair in counts if counts[pair] == counts[merge])
        for word in spelt:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == merge:
                    word[i : i + 2] = ["".join(merge)]
                i += 1
    assert page.learn_merges(["ab ab"], 40) == [("a", "b</w>")]
    assert page.learn_merges([], 3) == []


def test_files_of_both_kinds_load(ours, theirs, folder, tmp_path):
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file() and not (tmp_path / "vocab.json").is_file()
    for path in (folder, tmp_path):
        again = page.load_clip_tokenizer(path)
        assert again.ids == ours.ids and again.merges == ours.merges
        assert again.encode(PROSE) == ours.encode(PROSE)


def test_a_file_that_does_not_name_its_kind_loads_as_in_the_library(ours, theirs, tmp_path):
    """Older releases of tokenizers wrote no "type"; today's takes such a model for BPE if it has merges."""
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["model"].pop("type") == "BPE"
    file.write_text(json.dumps(written), encoding="utf-8")
    bare = tokenizers.Tokenizer.from_file(str(file))
    assert isinstance(bare.model, tokenizers.models.BPE)
    assert page.load_clip_tokenizer(tmp_path).encode(PROSE) == bare.encode(PROSE).ids == ours.encode(PROSE)
    del written["model"]["merges"]
    file.write_text(json.dumps(written), encoding="utf-8")
    assert not isinstance(tokenizers.Tokenizer.from_file(str(file)).model, tokenizers.models.BPE)
    with pytest.raises(ValueError, match="BPE with </w> is expected, given None with </w>"):
        page.load_clip_tokenizer(tmp_path)


def test_other_tokenizers_are_refused(ours, folder, tmp_path):
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="BPE with </w> is expected, given BPE with None"):
        page.load_clip_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(ours.ids))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ValueError, match="two pieces in each merge are expected"):
        page.load_clip_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq q\n")
    with pytest.raises(ValueError, match="an id for each piece and mark is expected, given none for .'qq'"):
        page.load_clip_tokenizer(tmp_path)


def test_without_merges_every_byte_is_a_piece():
    bare = page.ClipTokenizer([])
    assert len(bare.ids) == 514 and bare.end == 513
    assert bare.encode("cat") == [512, bare.ids["c"], bare.ids["a"], bare.ids["t</w>"], 513]
    assert bare.ids["!"] == 0  # OpenAI fills up with 0, which is an exclamation mark
