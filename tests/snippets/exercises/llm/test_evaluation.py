"""The exercises of the evaluation post: answers that tempt, and what is said of each."""

import math

import pytest

from snippets.exercises.llm import evaluation as exercises
from snippets.llm.evaluation import rouge_tokens
from snippets.llm.judging import bootstrap, mean
from snippets.llm.likelihood import accuracy, by_class
from tests.snippets.exercises.answers import prove


def share_left(words):
    return 100 * (1 - 1 / words)


def no_penalty(words):
    return 100.0


def exchanged(words):
    return 100 * math.exp(1 - (words - 1) / words)


def with_underscores(text):
    return [word for word in text.lower().replace("'", " ").replace(".", " ").replace(",", " ").split()]


def skips(score, tokens, context, stride):
    total = 0.0
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + context + 1]
        if len(window) > context - stride + 1:
            total += sum(score(window, max(1, context + 1 - stride)))
    return total


def without_context(score, tokens, context, stride):
    """The page's second fault."""
    return sum(sum(score(tokens[at - 1 : at + stride], 1)) for at in range(1, len(tokens), stride))


def one_window(score, tokens, context, stride):
    return sum(score(tokens, 1))


def mean_recall(truth, guesses):
    found = by_class(truth, guesses)
    return mean([recall for _, recall, _ in found.values()])


def each_by_itself(first, second, draws):
    one, other = bootstrap(first, draws=draws, seed=1), bootstrap(second, draws=draws, seed=2)
    return one[0] - other[1], one[1] - other[0]


def turned(first, second, draws):
    return exercises.interval_of_the_difference(second, first, draws)


WRONG = {
    1: [(share_left, "share of words"), (no_penalty, "too short"), (exchanged, "exchanged")],
    2: [(rouge_tokens, "loses letters"), (with_underscores, "should be")],
    3: [
        (exercises.hasty_nats, "counted more than once"),
        (skips, "is not counted"),
        (without_context, "is guessed from"),
        (one_window, "at most"),
    ],
    4: [(accuracy, "the accuracy"), (mean_recall, "leave it out")],
    5: [(each_by_itself, "surer than that"), (turned, "the second system")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
