"""TODO: say which answers tempt, and what the reader is told of each."""

import pytest

from snippets.exercises.llm import performer
from tests.snippets.exercises.answers import prove


def softer(query, key, temperature):
    return performer.sharper_weights(query, key, 1 / temperature)


def unchanged(query, key, temperature):
    return performer.sharper_weights(query, key, 1.0)


WRONG = {1: [(softer, "multiplies the scores"), (unchanged, "off by up to")]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(performer, number, WRONG[number])
