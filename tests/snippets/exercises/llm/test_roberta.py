"""The exercises of the RoBERTa post: answers that tempt, and what is said of each."""

from collections import Counter

import pytest
import torch

from snippets.exercises.llm import roberta as exercises
from tests.snippets.exercises.answers import prove


def all_rows(rows, pad):
    return rows


def less_padding(rows, pad):
    return rows - pad


def as_in_base(rows, pad):
    return rows - 2


def every_epoch_anew(epochs, copies):
    return 1 - 0.85**epochs


def every_copy(epochs, copies):
    return 1 - 0.85**copies


def added_up(epochs, copies):
    return 0.15 * min(epochs, copies)


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
    1: [(all_rows, "for no real token"), (less_padding, "padding's own row"), (as_in_base, "another id than 1")],
    2: [(every_epoch_anew, "no new mask"), (every_copy, "no ten copies"), (added_up, "do not add up")],
    3: [(by_kinds, "as often as it occurs"), (last_of_ties, "comes before")],
    4: [(exercises.hasty_loss, "mean of the parts' means"), (summed, "that is the sum"), (by_parts, "not of parts")],
    5: [(mark_of_the_next, "the document before it"), (no_look_ahead, "look ahead too")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])
