"""The exercises of the BERT post: answers that tempt, and what is said of each."""

import pytest
import torch

from snippets.exercises.llm import bert as exercises
from snippets.llm.bert import Bert
from snippets.llm.bert_pretraining import best_span
from tests.snippets.exercises.answers import prove


def of_all(chosen, masked):
    return chosen * (1 - masked)


def of_the_chosen(chosen, masked):
    return 1 - masked


def of_the_asked(chosen, masked):
    return chosen


def encoder_alone(config):
    return sum(p.numel() for p in Bert(config).parameters())


def pieces_twice(config):
    return exercises.parameters(config) + config.vocabulary * config.width


def without_the_bias(config):
    return exercises.parameters(config) - config.vocabulary


def without_the_norm(config):
    return exercises.parameters(config) - 2 * config.width


def forward_only(chosen, continues):
    for t in range(1, chosen.shape[1]):
        chosen[:, t] |= chosen[:, t - 1] & continues[:, t]
    return chosen


def as_it_was(chosen, continues):
    return chosen


def with_padding(x, real):
    return x.mean(dim=1)


def over_all(x, real):
    return (x * real[:, :, None]).sum(dim=1) / real.sum()


def everywhere(logits, segments, marks):
    return best_span(logits)


def with_the_last_mark(logits, segments, marks):
    return best_span(logits.masked_fill((segments == 0)[:, None], -torch.inf))


def one_by_one(logits, segments, marks):
    return logits.masked_fill(((segments == 0) | marks)[:, None], -torch.inf).argmax(dim=2)


WRONG = {
    1: [(of_all, "share of all tokens"), (of_the_chosen, "share of the chosen"), (of_the_asked, "asked too")],
    2: [
        (encoder_alone, "encoder alone"),
        (pieces_twice, "counted twice"),
        (without_the_bias, "bias of each piece"),
        (without_the_norm, "norm in the head"),
    ],
    3: [(forward_only, "those before it are not"), (as_it_was, "nothing is added")],
    4: [(exercises.hasty_mean, "the length of the batch"), (with_padding, "padding is in"), (over_all, "of all real")],
    5: [
        (everywhere, "the question is searched"),
        (with_the_last_mark, "it is no answer"),
        (one_by_one, "one by one"),
    ],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])


def test_the_shares_are_those_of_the_page():
    """Exercise 1: one ordinary word in 29 is asked."""
    assert 1 / exercises.asked_among_ordinary(0.15, 0.8) == pytest.approx(88 / 3)
