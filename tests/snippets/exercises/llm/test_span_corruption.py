"""TODO: say which answers tempt, and what the reader is told of each."""

import pytest

from snippets.exercises.llm import span_corruption
from tests.snippets.exercises.answers import prove


def softer(query, key, temperature):
    return span_corruption.sharper_weights(query, key, 1 / temperature)


def unchanged(query, key, temperature):
    return span_corruption.sharper_weights(query, key, 1.0)


WRONG = {1: [(softer, "multiplies the scores"), (unchanged, "off by up to")]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(span_corruption, number, WRONG[number])
