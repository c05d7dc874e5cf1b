"""The exercises of the RoBERTa post: answers that tempt, and what is said of each."""

import math
from collections import Counter

import pytest
import torch

from snippets.exercises.llm import roberta as exercises
from tests.snippets.exercises.answers import prove


def all_rows(rows, pad):
    return rows - 4


def less_padding(rows, pad):
    return rows - pad - 4


def without_marks(rows, pad):
    return rows - pad - 1


def as_in_bert(rows, pad):
    return rows - pad - 1 - 3


def rounded_down(share):
    return math.floor(math.log(1 - share) / math.log(0.85))


def not_rounded(share):
    return math.log(1 - share) / math.log(0.85)


def added_up(share):
    return math.ceil(share / 0.15)


def never_asked(share):
    return math.ceil(math.log(share) / math.log(0.85))


def by_kinds(words):
    totals = Counter(pair for word in words for pair in zip(word, word[1:], strict=False))
    return min(totals, key=lambda pair: (-totals[pair], pair))


def last_of_ties(words):
    totals = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:], strict=False):
            totals[pair] += count
    return max(totals, key=lambda pair: (totals[pair], pair))


def summed(parts):
    return torch.cat(parts).sum()


def by_parts(parts):
    return torch.cat(parts).sum() / len(parts)


def mark_of_the_next(tokens, end):
    number = (tokens == end).cumsum(dim=1)
    return number[:, :, None] == number[:, None, :]


def no_look_ahead(tokens, end):
    return exercises.same_document(tokens, end).tril()


WRONG = {
    1: [
        (all_rows, "for no real token"),
        (less_padding, "padding's own row"),
        (without_marks, "the marks take places"),
        (as_in_bert, "two marks stand between"),
    ],
    2: [
        (rounded_down, "a little less"),
        (not_rounded, "a whole number"),
        (added_up, "do not add up"),
        (never_asked, "never chosen"),
    ],
    3: [(by_kinds, "as often as it occurs"), (last_of_ties, "comes before")],
    4: [(exercises.hasty_loss, "mean of the parts' means"), (summed, "that is the sum"), (by_parts, "not of parts")],
    5: [(mark_of_the_next, "the document before it"), (no_look_ahead, "look ahead too")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
