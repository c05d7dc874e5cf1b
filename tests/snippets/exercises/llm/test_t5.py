"""The exercises of the encoder-decoder post: answers that tempt, and what is said of each."""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.exercises.llm import t5 as exercises
from snippets.llm.t5 import IGNORED, loss, shift_right
from tests.snippets.exercises.answers import prove


def rounded_down(which):
    return which if which < 16 else math.floor(16 * 8 ** ((which - 16) / 16))


def each_its_own(which):
    return which


def turned_round(short, m, long, n):
    return -exercises.balance(short, m, long, n)


def upside_down(short, m, long, n):
    return 1 / exercises.balance(short, m, long, n)


def by_difference(short, m, long, n):
    return (long - short) / (n - m)


def no_token_twice(logits, written):
    return logits.scatter(1, written, -math.inf)


def only_the_last_pair(logits, written):
    logits = logits.clone()
    if written.shape[1] > 1:
        rows = torch.arange(len(written))
        logits[rows, written[:, -1]] = -math.inf
    return logits


def nothing_left(logits, written):
    return torch.full_like(logits, -math.inf)


def with_the_padding(model, source, real, target):
    return exercises.hasty_loss(model, source, real, target)


def row_by_row(model, source, real, target):
    logits = model(source, shift_right(target, model.config), real)
    cost = F.cross_entropy(logits.transpose(1, 2), target, ignore_index=model.config.pad, reduction="none")
    return (cost.sum(dim=1) / (target != model.config.pad).sum(dim=1)).mean()


def without_the_end(model, source, real, target):
    logits = model(source, shift_right(target, model.config), real)
    cost = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    return cost[target > 1].mean()


def by_the_printed_loss(model, source, real, target):
    """Right too: with the padding ignored, the printed loss is the answer."""
    return loss(model, source, real, target.masked_fill(target == model.config.pad, IGNORED))


def the_cost(model, source, real, target):
    return -exercises.log_probability(model, source, real, target)


def the_mean(model, source, real, target):
    return exercises.log_probability(model, source, real, target) / (target != IGNORED).sum(dim=1)


def of_the_batch(model, source, real, target):
    return -loss(model, source, real, target)


WRONG = {
    1: [(rounded_down, "round up"), (each_its_own, "nearest(17) is too small")],
    2: [(turned_round, "minus the penalty"), (upside_down, "one over"), (by_difference, "balance(-2.0, 4, -3.0, 8)")],
    3: [
        (no_token_twice, "a pair of tokens may not"),
        (only_the_last_pair, "the tokens that may not follow are [5]"),
        (nothing_left, "the tokens that may not follow are [5]"),
    ],
    4: [
        (with_the_padding, "the padding still counts"),
        (row_by_row, "should not count more"),
        (without_the_end, "no text would stop"),
    ],
    5: [(the_cost, "minus that"), (the_mean, "a product"), (of_the_batch, "has the shape ()")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])


def test_another_right_answer_is_right():
    exercises.check_4(by_the_printed_loss)


def test_no_repeat_is_the_librarys():
    from transformers import NoRepeatNGramLogitsProcessor

    written, logits = torch.randint(6, (50, 9)), torch.randn(50, 6)
    theirs = NoRepeatNGramLogitsProcessor(2)(written, logits.clone())
    assert exercises.no_repeat(logits, written).equal(theirs) and theirs.isinf().any()
