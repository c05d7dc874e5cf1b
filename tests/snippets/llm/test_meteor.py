"""METEOR and its stemmer against NLTK; how its pairing differs from the paper's."""

import random
from itertools import permutations

import pytest
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import align_words
from nltk.translate.meteor_score import meteor_score as nltk_meteor

from snippets.data.text import documents
from snippets.llm.meteor import align, count_chunks, meteor, meteor_score, stem
from tests.snippets.llm.texts import compare, pair, text


class NoSynonyms:
    """WordNet needs a download; without synonyms both sides have two stages."""

    def synsets(self, word):
        return []


def test_meteor_is_that_of_nltk(agrees):
    def words(source):
        return *(one.split() for one in pair(source)), text(source).split()

    compare(
        words,
        lambda candidate, *references: meteor(candidate, list(references), stem),
        lambda candidate, *references: nltk_meteor(references, candidate, wordnet=NoSynonyms()),
        agrees,
        "nltk.translate.meteor_score.single_meteor_score",
    )


def test_stems_are_those_of_nltk():
    """Every word of Python's documentation, and 20,000 made of endings."""
    source, theirs = random.Random(0), PorterStemmer()
    endings = """ational tional enci anci izer abli bli alli entli eli ousli ization ation ator alism iveness fulness
    aliti ousness iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement
    ment ent ion ou ism ate iti ous ive ize ies ied eed ed ing s sses y e ll logy ying""".split()
    words = {word for passage in documents().values() for word in passage.lower().split() if word.isalpha()}
    for _ in range(20_000):
        start = "".join(source.choices("aeiouybcdstlzwx", k=source.randint(0, 5)))
        words.add(start + "".join(source.choices(endings, k=source.randint(0, 2))))
    wrong = [word for word in words if stem(word) != theirs.stem(word)]
    assert len(words) > 20_000 and not wrong, wrong[:5]


def fewest_chunks(candidate, reference):
    """The paper's alignment, by trying all: the most pairs of equal words, then the fewest chunks."""
    best = (0, 0)
    for places in permutations([*range(len(reference)), *[None] * len(candidate)], len(candidate)):
        pairs = [(i, j) for i, j in enumerate(places) if j is not None and candidate[i] == reference[j]]
        if len(pairs) == sum(j is not None for j in places):
            best = max(best, (len(pairs), -count_chunks(pairs)))
    return best[0], -best[1]


@pytest.mark.claim("eval-pairs")
def test_nltk_pairs_from_the_right_and_the_paper_for_the_fewest_chunks():
    """NLTK's docstring promises the fewest crossings; its code takes the last equal word that is free."""
    candidate, reference = "the cat".split(), "the cat the".split()
    pairs = align(candidate, reference, stem)
    assert pairs == [(0, 2), (1, 1)] and count_chunks(pairs) == 2 and fewest_chunks(candidate, reference) == (2, 1)
    greedy, best = (meteor_score(2, 2, 3, chunks) for chunks in (2, 1))
    theirs = nltk_meteor([reference], candidate, wordnet=NoSynonyms())
    assert meteor(candidate, [reference], stem) == greedy == theirs == pytest.approx(0.345, abs=1e-3)
    assert "least number of crossing" in " ".join(align_words.__doc__.split())
    assert best == pytest.approx(0.647, abs=1e-3)


@pytest.mark.claim("eval-half")
def test_one_equal_word_is_a_half():
    """One chunk of one match is the worst order that there is."""
    assert nltk_meteor([["cat"]], ["cat"], wordnet=NoSynonyms()) == 0.5
    assert meteor(["cat"], [["cat"]], stem) == 0.5 and meteor(["a", "b"], [["a", "b"]], stem) == 1 - 0.5 / 8


def test_texts_are_refused_and_nothing_scores_nothing():
    assert meteor([], [["a"]], stem) == meteor(["a"], [[]], stem) == meteor([], [[]], stem) == 0
    for candidate, references in (("a b", [["a"]]), (["a"], ["a"]), (["a"], [])):
        with pytest.raises(ValueError, match="lists of words are expected"):
            meteor(candidate, references, stem)


@pytest.mark.equation("eval-meteor", of=meteor_score)
def test_meteor_is_its_formula(formula):
    names = {"M": meteor_score(5, 7, 8, 3), "P": 5 / 7, "R": 5 / 8, r"\kappa": 3, "m": 5}
    formula("eval-meteor").holds(names)
    assert meteor_score(0, 3, 3, 0) == 0
