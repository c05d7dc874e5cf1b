"""TER against sacrebleu: texts, words that repeat, blocks that move, references longer than the beam."""

import pytest
from sacrebleu.metrics import TER
from sacrebleu.metrics.lib_ter import BeamEditDistance, translation_edit_rate

from snippets.llm.ter import count_edits, edit_distance, edit_rows, moved, ter
from tests.snippets.llm.texts import compare, corpus, streams


def test_ter_is_that_of_sacrebleu(agrees):
    theirs = TER()
    compare(
        corpus,
        ter,
        lambda candidates, references: theirs.corpus_score(candidates, streams(references)).score,
        agrees,
        "sacrebleu.TER",
    )


def blocks(source):
    """A text of few kinds of words, and the same with blocks moved and words replaced; some beyond the beam of 25."""
    words = source.choices("abcdefghijklmnopqrst"[: source.choice((2, 4, 20))], k=source.choice((3, 9, 24, 25, 26, 45)))
    other = list(words)
    for _ in range(source.randint(0, 3)):
        start, length = source.randrange(len(other)), source.randint(1, 4)
        block = other[start : start + length]
        del other[start : start + length]
        place = source.randint(0, len(other))
        other[place:place] = block
        other[source.randrange(len(other))] = "z"
    return other, words


def test_edits_are_those_of_sacrebleu_beyond_the_beam_too(agrees):
    theirs = "sacrebleu.metrics.lib_ter.translation_edit_rate"
    compare(blocks, count_edits, lambda c, r: translation_edit_rate(c, r)[0], agrees, theirs, 0, cases=100)


def test_the_distance_of_bits_is_that_of_the_table(agrees):
    def by_bits(candidate, reference):
        places = {}
        for at, word in enumerate(reference):
            places[word] = places.get(word, 0) | 1 << at
        return [edit_distance(candidate, places, len(reference)), edit_rows(candidate, reference, [])[-1][-1]]

    def short(source):
        return tuple(source.choices("abcd", k=source.randint(1, 22)) for _ in range(2))

    oracle = "sacrebleu.metrics.lib_ter.BeamEditDistance"
    compare(short, by_bits, lambda c, r: [BeamEditDistance(r)(c)[0]] * 2, agrees, oracle, 0)


def test_a_moved_block_is_one_edit():
    """By hand: `d e` moves to the front; without moves it would be four edits."""
    assert count_edits("a b c d e".split(), "d e a b c".split()) == 1
    assert edit_rows("a b c d e".split(), "d e a b c".split(), [])[-1][-1] == 4
    assert moved(list("abcde"), 3, 2, 0) == list("deabc") and moved(list("abcde"), 0, 2, 5) == list("cdeab")


@pytest.mark.claim("eval-ter-case")
def test_case_does_not_count_and_marks_stick_to_words():
    assert ter(["The Cat"], [["the cat"]]) == 0 and ter(["the cat ."], [["the cat."]]) == 100
    assert TER().corpus_score(["the cat ."], [["the cat."]]).score == 100
    assert TER().corpus_score(["The Cat"], [["the cat"]]).score == 0


def test_the_fewest_edits_over_the_mean_length():
    """One edit to the reference of two words; the mean of two and six words is four."""
    assert ter(["a b"], [["a x", "a b c d e f"]]) == 25


def test_empty_texts():
    assert ter([""], [[""]]) == 0 and ter(["a b"], [[""]]) == 100 == ter([""], [["a b"]])
    with pytest.raises(ValueError, match="expected, given"):
        ter([], [])


@pytest.mark.equation("eval-ter", of=ter)
def test_ter_is_its_formula(formula):
    """`d e` moves, one edit; `x` is replaced and nine words are put in, ten. Two references, 16 words."""
    candidates, references = ["d e a b c", "a x"], [["a b c d e"], ["a b c d e f g h i j k"]]
    edits = 1 + 10
    formula("eval-ter").holds({r"\mathrm{TER}": ter(candidates, references), "E": edits, "L": 16})
