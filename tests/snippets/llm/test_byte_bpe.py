"""Byte-level BPE: equal to tokenizers' on odd strings and in training; GPT-2's splitting rule; any bytes come back."""

import itertools
import math
import random
import re
import sys
import time
import unicodedata
from collections import Counter

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import RobertaTokenizer

from snippets.data.text import documents
from snippets.llm import byte_bpe as page

PROSE = sorted(documents().values(), key=len)[-8:]
MERGES = page.train_merges(PROSE, 1200)
OURS = page.ByteBPE(MERGES)
PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def library(merges, ids):
    """tokenizers' byte-level BPE of the same merges and ids."""
    pairs = [(page.written(a), page.written(b)) for a, b in merges]
    theirs = Tokenizer(models.BPE(vocab=ids, merges=pairs))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    return theirs


THEIRS = library(MERGES, OURS.ids)

TROUBLE = [
    "",
    " ",
    "  a   b\t\tc\n\n d \r\n e   ",
    "Hello, World! don't we'll it's O'Neill I'M I'm 'Sup ''s 's' ' s x's're",
    "don't 's",
    "naïve café ÅNGSTRÖM İstanbul ΣΊΣΥΦΟΣ straße",
    "e\u0301 a\u0308 x\u0300\u0301\u0302y",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ a👍b",
    "ภาษาไทยไม่มีช่องว่าง หนึ่ง ๑๒๓",
    "हिन्दी में लिखा १२३",
    "한국어 텍스트 각 日本語のテキスト 中文没有空格ABC中文",
    "العربية والنَّصّ ٣٤ עִבְרִית",
    "zero\u200bwidth\u200cjoin\u200der\ufeffbom\u2060word\u00adsoft",
    "nul\x00 bell\x07 fs\x1c gs\x1d rs\x1e us\x1f esc\x1b del\x7f c1\x85nel\x9f",
    "vt\x0bff\x0c ls\u2028ps\u2029 nbsp\u00a0 ideographic\u3000 ogham\u1680 mongolian\u180e",
    "²³ ½ Ⅷ x² ①② 四 ㊿ ৴ 1²a",
    "snake_case __init__ _ a_1 _²",
    "a" * 3000,
    "-" * 5000 + "=" * 77 + "ab" * 800,
    "🙂" * 300,
    "$1,000.00 + 50% = ~x^2_y|z<>`\\{}[]@#&*",
    "<s> <mask> </s> a<mask>b <pad>",
    "\ufffd \ue000private \U0010fffd",
    "𝒜𝓁𝑔 ﬁne ﬂow ſ ẞ Ａ１",  # noqa: RUF001
    "def f(x):\n    return x  # two\n\n\tif x:\n        pass\n",
]


# the splitting rule


EVERY = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn")]


def one_by_one(split):
    """Assigned characters around which a way of splitting differs from ours; private ones by their ends."""
    shown, found = [c for c in EVERY if unicodedata.category(c) != "Co"] + ["\ue000", "\uf8ff", "\U0010fffd"], []
    for at in range(0, len(shown), 1000):
        texts = [f"a{character}1 {character}\n" for character in shown[at : at + 1000]]
        if page.chunks("".join(texts)) != split("".join(texts)):
            found += [text[1] for text in texts if page.chunks(text) != split(text)]
    return found


def by_tokenizers(text):
    return [text[start:end] for _, (start, end) in THEIRS.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.claim("roberta-split")
def test_the_splitting_rule_differs_at_unassigned_characters_only():
    """None that Python's table of Unicode knows; one of Unicode 16, which Python 3.11 to 3.13 do not know, does."""
    for split in (PATTERN.findall, by_tokenizers):
        assert one_by_one(split) == []
    new = "\u1c89"  # CYRILLIC CAPITAL LETTER TJE
    assert PATTERN.findall(f"a{new}") == by_tokenizers(f"a{new}") == [f"a{new}"]
    assert len(page.chunks(f"a{new}")) == (2 if unicodedata.category(new) == "Cn" else 1)
    assert page.chunks("a\x1cb") == ["a", "\x1c", "b"] and "\x1c".isspace()  # no space to GPT-2's rule, one to Python


def test_a_rule_on_plain_letters_would_differ():
    """Negative control: [^\\W\\d_] takes in ² and Ⅷ, \\s takes in \\x1c."""
    plain = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")
    assert plain.findall("x²") == ["x²"] and page.chunks("x²") == ["x", "²"] == PATTERN.findall("x²")
    assert page.chunks("Ⅷ四") == ["Ⅷ", "四"] == PATTERN.findall("Ⅷ四")


@pytest.mark.parametrize("text", TROUBLE)
def test_public_trouble_splits_as_by_regex(text):
    assert page.chunks(text) == PATTERN.findall(text) and "".join(page.chunks(text)) == text


@pytest.mark.claim("roberta-contractions")
def test_contractions_are_small_and_come_first():
    """The page's examples of the rule."""
    assert page.chunks("it's IT'S") == ["it", "'s", " IT", "'", "S"]
    assert page.chunks(" 's") == [" '", "s"]  # the space takes the mark along
    assert page.chunks("two  words") == ["two", " ", " words"]
    assert page.chunks("end  ") == ["end", "  "]


# ids


@pytest.mark.parametrize("text", TROUBLE)
def test_ids_equal_tokenizers_on_public_trouble(text):
    assert OURS.encode(text) == THEIRS.encode(text).ids
    assert OURS.decode(OURS.encode(text)) == text


ALPHABET = st.characters(exclude_categories=["Cs", "Cn"])
ODD = st.sampled_from([c for text in TROUBLE for c in text[:90]] + [" the", "ing ", "'ll", "  ", "\n\n", "aa", "----"])
STRINGS = st.lists(ALPHABET | ODD | st.sampled_from("abcxyz ABC123"), max_size=30).map("".join)


@settings(max_examples=2500)
@given(text=STRINGS)
def test_ids_equal_tokenizers_on_odd_strings(text):
    ids = OURS.encode(text)
    assert ids == THEIRS.encode(text).ids
    assert OURS.decode(ids) == text == THEIRS.decode(ids, skip_special_tokens=False)


def test_ids_equal_tokenizers_on_prose():
    for document in random.Random(0).sample(sorted(documents().values()), 60):
        assert OURS.encode(document) == THEIRS.encode(document).ids


@settings(max_examples=300)
@given(
    pairs=st.lists(st.tuples(st.sampled_from([b"a", b"b", b"ab", b"ba", b"aa", b"aba", b"bb"])).map(lambda x: x[0])),
    text=st.text("ab", max_size=25),
)
def test_merges_in_any_order_equal_tokenizers(pairs, text):
    """Ranks that no training would give: a piece's own merge may come after one that needs it."""
    made, merges = {b"a", b"b"}, []
    for piece in dict.fromkeys(pairs):
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if {piece[:i], piece[i:]} <= made]
        if cuts:
            made.add(piece)
            merges.append(cuts[-1])
    merges.reverse()
    ours = page.ByteBPE(merges)
    assert ours.encode(text) == library(merges, ours.ids).encode(text).ids


def by_rank(chunk, ranks):
    """The rule itself, slow: the pair of lowest rank, the leftmost, again and again."""
    pieces = [bytes([byte]) for byte in chunk]
    while True:
        pairs = [(ranks.get(pair, math.inf), i) for i, pair in enumerate(itertools.pairwise(pieces))]
        rank, i = min(pairs, default=(math.inf, 0))
        if rank == math.inf:
            return pieces
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


@settings(max_examples=300)
@given(chunk=st.binary(max_size=40) | st.text("the ing", max_size=40).map(str.encode))
def test_the_pair_of_lowest_rank_is_joined_first(chunk):
    assert page.merge(chunk, OURS.ranks) == by_rank(chunk, OURS.ranks)


def test_the_worked_example():
    """The page's, with its ties; then a word that did not occur is cut into low and est."""
    texts = ["low low low lower newest newest widest"]
    merges = page.train_merges(texts, 5)
    assert merges == [(b"l", b"o"), (b"lo", b"w"), (b"e", b"s"), (b" ", b"low"), (b"es", b"t")]
    ours = page.ByteBPE(merges)
    assert [ours.names[i] for i in ours.encode("lowest")] == ["low", "est"]
    leftmost = ["l", "o", "w", "e", "s", "t"]  # negative control: without merges
    assert [page.ByteBPE([]).names[i] for i in page.ByteBPE([]).encode("lowest")] == leftmost


def test_a_chunk_of_many_bytes_takes_no_quadratic_time():
    """Joins of a heap, not of a list that is searched: twice the bytes, about twice the look-ups."""

    class Counted(dict):
        looked = 0

        def __contains__(self, key):
            self.looked += 1
            return super().__contains__(key)

    looked = []
    for size in (1000, 2000, 4000):
        ranks = Counted(OURS.ranks)
        page.merge(("the" * size).encode(), ranks)
        looked.append(ranks.looked / size)
    assert max(looked) < 1.1 * min(looked)


# any bytes


@settings(max_examples=500)
@given(data=st.binary(max_size=60))
def test_any_bytes_come_back(data):
    text = data.decode("utf-8", "surrogateescape")
    assert OURS.bytes_of(OURS.encode(text)) == data


@pytest.mark.claim("roberta-replacement")
def test_pieces_may_end_within_a_letter():
    """The page's confusion: decode all bytes at once, not piece by piece."""
    ids = OURS.encode("日")
    assert len(ids) == 3 and OURS.decode(ids) == "日"
    assert "".join(OURS.decode([i]) for i in ids) == "\ufffd" * 3
    assert OURS.decode(ids[:2]) == "\ufffd"


def test_letters_for_bytes_are_gpt2s():
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(page.LETTERS.values()) == sorted(ByteLevel.alphabet())
    assert page.written(b" is\n") == "ĠisĊ" and page.read("ĠisĊ") == b" is\n"
    assert [page.LETTERS[byte] for byte in page.ORDER] == sorted(page.LETTERS.values(), key=ord)
    with pytest.raises(ValueError, match="stand for bytes"):
        page.read("a b")


# training


def trained_by_tokenizers(texts, count):
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(texts, trainer)
    vocabulary = theirs.get_vocab()
    return sorted((piece for piece in vocabulary if len(piece) > 1), key=vocabulary.get)


@pytest.mark.parametrize("count", [100, 1200])
def test_training_equals_tokenizers(count):
    ours = [page.written(a + b) for a, b in MERGES[:count]]
    assert ours == trained_by_tokenizers(PROSE, count)


@settings(max_examples=200)
@given(texts=st.lists(st.text("ab é-", max_size=30), min_size=1, max_size=6), count=st.integers(0, 12))
def test_training_is_the_slow_rule(texts, count):
    """All pairs counted afresh before each merge; ties by age of the first piece, then of the second."""
    words = Counter(tuple(bytes([b]) for b in chunk.encode()) for text in texts for chunk in page.chunks(text))
    age, merges = {bytes([byte]): i for i, byte in enumerate(page.ORDER)}, []
    while len(merges) < count:
        totals = Counter()
        for word, number in words.items():
            for pair in itertools.pairwise(word):
                totals[pair] += number
        if not totals:
            break
        best = min(totals, key=lambda pair: (-totals[pair], age[pair[0]], age[pair[1]]))
        merges.append(best)
        age.setdefault(best[0] + best[1], len(age))
        joined = Counter()
        for word, number in words.items():
            new, i = [], 0
            while i < len(word):
                both = word[i : i + 2] == best
                new.append(b"".join(best) if both else word[i])
                i += 2 if both else 1
            joined[tuple(new)] += number
        words = joined
    pieces = [a + b for a, b in merges]
    if len(set(pieces)) == len(pieces):  # two ways to one piece: here it has two ages, there one
        assert page.train_merges(texts, count) == merges


def test_training_does_not_depend_on_the_order_of_texts():
    assert page.train_merges(PROSE[::-1], 300) == MERGES[:300]
    assert page.train_merges(["ab ab"], 10) == [(b"a", b"b"), (b" ", b"ab")]  # then nothing is left to join
    with pytest.raises(ValueError, match="a number of merges"):
        page.train_merges(PROSE, -1)


# vocabularies and files


def test_ids_count_marks_bytes_and_merges():
    assert [OURS.ids[name] for name in ("<s>", "<pad>", "</s>", "<unk>", "!", "Ġ")] == [0, 1, 2, 3, 4, 4 + 220]
    assert OURS.ids["<mask>"] == len(OURS.ids) - 1 == 260 + len(MERGES)
    for ids in (OURS.ids | {"Ġ": 0}, {"<s>": 0}):
        with pytest.raises(ValueError, match="an id of its own"):
            page.ByteBPE(MERGES, ids)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(page, "KEPT", 3)
    ours = page.ByteBPE(MERGES)
    text = " ".join("abcdefgh")
    assert ours.encode(text) == ours.encode(text) == OURS.encode(text) and len(ours.memo) == 3


def test_files_are_read_by_both(tmp_path):
    page.save_bpe(OURS, tmp_path)
    theirs = models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    again = page.load_bpe(tmp_path)
    assert again.merges == MERGES and again.ids == OURS.ids
    whole = Tokenizer(theirs)
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in TROUBLE:
        assert whole.encode(text).ids == again.encode(text) == OURS.encode(text)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ValueError, match="two pieces"):
        page.load_bpe(tmp_path)


# marks


def test_marks_in_a_text_equal_tokenizers():
    theirs = library(MERGES, OURS.ids)
    theirs.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "<pad>", "</s>", "<unk>")])
    theirs.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    for text in (
        "a <mask> b",
        "a<mask> b",
        "<s>a \n <mask></s>",
        "<mask><mask>  <pad> <unk>x",
        "no marks",
        "< s> <masks",
    ):
        assert OURS.encode_marked(text) == theirs.encode(text).ids, text
    assert OURS.ids["<mask>"] not in OURS.encode("a <mask>")


def test_every_kind_of_space_before_a_mask_goes_and_long_runs_take_no_longer():
    assert all(re.fullmatch(f"[{page.SPACE}]", one) for one in page.SPACES) and len(page.SPACES) == 25
    mask = OURS.ids["<mask>"]
    for space in page.SPACES:
        assert OURS.encode_marked(f"a{space}<mask>") == [*OURS.encode("a"), mask]
    assert OURS.encode_marked("a\x1c<mask>") == [*OURS.encode("a\x1c"), mask]
    seconds = []
    for count in (2000, 50_000):  # looked for from each space, 25 times as many took 600 times as long
        start = time.process_time()
        assert OURS.encode_marked("a" + " " * count + "b <mask>") == [*OURS.encode("a" + " " * count + "b"), mask]
        seconds.append(time.process_time() - start)
    assert seconds[1] < 5


def test_a_space_before_the_mask_is_the_masks():
    """The page's confusion: the space belongs to the word, so that the mask takes it in."""
    assert OURS.encode_marked("the <mask>") == [*OURS.encode("the"), OURS.ids["<mask>"]]


@pytest.mark.claim("roberta-pair-marks")
def test_library_puts_two_marks_between_the_parts_of_a_pair():
    pairs = [(page.written(a), page.written(b)) for a, b in MERGES]
    theirs = RobertaTokenizer(vocab=OURS.ids, merges=pairs)
    names = theirs.convert_ids_to_tokens(theirs("a", "b")["input_ids"])
    assert names == ["<s>", "a", "</s>", "</s>", "b", "</s>"]


@pytest.mark.claim("roberta-prefix-space")
def test_the_bare_rule_of_tokenizers_puts_a_space_first_and_transformers_does_not():
    pairs = [(page.written(a), page.written(b)) for a, b in MERGES]
    theirs = RobertaTokenizer(vocab=OURS.ids, merges=pairs)
    assert theirs("the")["input_ids"] == [0, *OURS.encode("the"), 2] != [0, *OURS.encode(" the"), 2]
    assert pre_tokenizers.ByteLevel().pre_tokenize_str("the")[0][0] == "Ġthe"  # unless told otherwise
    assert OURS.encode(" the") != OURS.encode("the")


@pytest.mark.claim("roberta-mask-space")
def test_a_tokenizer_from_a_vocabulary_leaves_the_space_before_the_mask_unless_told():
    pairs = [(page.written(a), page.written(b)) for a, b in MERGES]
    plain = RobertaTokenizer(vocab=OURS.ids, merges=pairs)
    told = RobertaTokenizer(vocab=OURS.ids, merges=pairs, mask_token=AddedToken("<mask>", lstrip=True, special=True))
    space, mask = OURS.ids["Ġ"], OURS.ids["<mask>"]
    assert plain("the <mask>")["input_ids"][1:-1] == [*OURS.encode("the"), space, mask]
    assert told("the <mask>")["input_ids"][1:-1] == OURS.encode_marked("the <mask>") == [*OURS.encode("the"), mask]
