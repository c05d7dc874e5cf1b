"""The changes of a sentence do what they say, and the page's table is that of its metrics."""

import random

import pytest

from snippets.llm import scorecard
from snippets.llm.scorecard import CHANGES, METRICS, VERBS, scores, sentences

MAY_NOT = (scorecard.lower, scorecard.unmark)  # find nothing to change
WORDS = "The same value is used, if it was not given.".split()
CLAUSE = "The class that is created will hold no other attribute."


def after(change, words=WORDS, seed=0):
    return " ".join(change(words, random.Random(seed)))


def test_sentences_are_some_and_each_change_finds_something():
    found = sentences()
    assert len(found) > 100 and len(set(found)) == len(found)
    for text in random.Random(0).sample(found, 40):
        words = text.split()
        assert 8 <= len(words) <= 30 and VERBS & set(words)
        assert sum(a != b for a, b in zip(words, scorecard.paraphrase(words, None), strict=True)) == 1
        assert abs(len(scorecard.negate(words, None)) - len(words)) == 1
        for change in CHANGES:
            assert after(change, words) != text or change in MAY_NOT, change


def test_a_sentence_has_one_word_to_exchange_and_its_verb_outside_of_clauses():
    plain = "The class is created by a call of this function."
    assert scorecard.is_plain(plain) and not scorecard.is_plain(CLAUSE)
    for other in ("The same class is created here.", "The class is a class.", "If the class is created, it is done."):
        assert not scorecard.is_plain(other), other
    for other in ("The class, created by a call.", plain + " >>> f()", "It cannot be done and is created"):
        assert not scorecard.is_plain(other), other


def test_changes_by_hand():
    assert after(scorecard.lower) == "the same value is used, if it was not given."
    assert after(scorecard.unmark) == "The same value is used if it was not given"
    assert after(scorecard.paraphrase) == "The identical value is used, if it was not given."
    assert after(scorecard.negate) == "The same value is not used, if it was not given."
    assert after(scorecard.negate, "It was not given".split()) == "It was given"
    assert after(scorecard.cut) == "The same value is used,"
    assert after(scorecard.repeat) == "The same value is used, if it was not given. if it was not given."
    assert after(scorecard.other) in sentences()
    text = random.Random(7).choice(sentences())  # what the same seed draws first
    assert after(scorecard.other, text.split(), seed=7) != text


def test_changes_that_draw_keep_what_they_should():
    for seed in range(20):
        kept = {name: after(getattr(scorecard, name), seed=seed).split() for name in ("drop", "swap", "shuffle")}
        assert [len(words) for words in kept.values()] == [9, 10, 10]
        assert sorted(kept["swap"]) == sorted(kept["shuffle"]) == sorted(WORDS) and set(kept["drop"]) < set(WORDS)
        moved = [at for at in range(10) if kept["swap"][at] != WORDS[at]]
        assert moved[1] - moved[0] == 1 and len(moved) == 2


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_100_for_the_same_text_and_less_for_another(name):
    same = [text for text in sentences()[:5]]
    assert all(METRICS[name](text, text) == pytest.approx(100, abs=0.5) for text in same)
    assert all(METRICS[name](text, "nothing of this kind") < 60 for text in same)


def test_scores_are_those_of_the_metric():
    texts = sentences()[:3]
    source = random.Random(3)
    words = [" ".join(scorecard.swap(text.split(), source)) for text in texts]
    expected = [METRICS["chrF"](one, text) for one, text in zip(words, texts, strict=True)]
    assert scores(texts, scorecard.swap, "chrF", seed=3) == expected


def test_the_program_prints_and_draws(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scorecard, "PAIRS", 4)
    scorecard.main()
    said = capsys.readouterr().out
    assert "BLEU 38.0" in said and "passed, AssertionError, time is up" in said and (tmp_path / "scores.png").exists()
