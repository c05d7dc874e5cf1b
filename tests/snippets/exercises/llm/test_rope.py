"""The exercises of the RoPE post: answers that tempt, others that are right too, and what is said of each."""

import math

import pytest
import torch
import torch.nn.functional as F

from snippets.exercises.llm import rope as exercises
from snippets.llm import rope
from tests.snippets.exercises.answers import prove


def one_pair_later(dim, length):
    return length / (2 * math.pi)


def a_turn_of_one(dim, length):
    return length ** (dim / (dim - 2))


def as_much_as_the_text(dim, trained, length, base):
    return length / trained


def for_a_known_pair(dim, trained, length, base):
    first = int((trained * rope.inverse_frequencies(dim, base) >= 2 * math.pi).sum())
    return (length / trained) ** ((dim - 2) / (2 * first - 2))


def exponent_of_the_base(dim, trained, length, base):
    first = int((trained * rope.inverse_frequencies(dim, base) >= 2 * math.pi).sum())
    return (length / trained) ** (dim / (2 * first))


def warm(theta, query, key, value, scale, causal=True):
    angle = rope.angles(torch.arange(query.shape[2]), theta)
    turned = [rope.rotate_partial(x, angle) for x in (query, key)]
    return F.scaled_dot_product_attention(*turned, value, is_causal=causal, scale=scale)


def larger_cosines(theta, magnitude, query, key, value):
    angle = rope.angles(torch.arange(query.shape[2]), theta)
    rotary = 2 * len(theta)
    turned = []
    for x in (query, key):
        x = torch.cat([magnitude * rope.rotate_halves(x[..., :rotary], angle), x[..., rotary:]], dim=-1)
        turned.append(x)
    return F.scaled_dot_product_attention(*turned, value, is_causal=True)


def cold(theta, magnitude, query, key, value):
    return warm(theta, query, key, value, None)


def grown_once(theta, magnitude, query, key, value):
    return warm(theta, magnitude * query, key, value, None)


def scale_alone(theta, magnitude, query, key, value):
    return warm(theta, query, key, value, magnitude**2)


def without_mask(theta, magnitude, query, key, value):
    return warm(theta, magnitude * query, magnitude * key, value, None, causal=False)


def both_grown(theta, magnitude, query, key, value):
    """Right too, with two more multiplications for each query and each key."""
    return warm(theta, magnitude * query, magnitude * key, value, None)


def backwards(x, angle):
    return rope.rotate_halves(x, -angle)


def turned_again(key, theta, other):
    return rope.rotate_halves(key, rope.angles(torch.arange(key.shape[2]), other))


def the_other_way(key, theta, other):
    return exercises.changed_keys(key, other, theta)


def turned_back(key, theta, other):
    return rope.rotate_halves(key, -rope.angles(torch.arange(key.shape[2]), theta))


def left_alone(key, theta, other):
    return key


def back_and_forth(key, theta, other):
    """Right too, in two turns."""
    return turned_again(turned_back(key, theta, other), theta, other)


WRONG = {
    1: [(one_pair_later, "i = dim / 2 - 1"), (a_turn_of_one, "2 pi radians")],
    2: [
        (as_much_as_the_text, "for the slowest pair only"),
        (for_a_known_pair, "it needs nothing"),
        (exponent_of_the_base, "not 2i / dim"),
    ],
    3: [
        (larger_cosines, "only what turns has grown"),
        (cold, "the temperature is not there"),
        (grown_once, "grow by its square"),
        (scale_alone, "has to be part of it"),
        (without_mask, "what comes after it"),
    ],
    4: [
        (exercises.hasty_rotation, "by different angles"),
        (rope.rotate_pairs, "that turns neighbours"),
        (backwards, "the other way round"),
    ],
    5: [
        (turned_again, "turned twice"),
        (the_other_way, "new minus old"),
        (turned_back, "before any turn"),
        (left_alone, "as they were"),
    ],
}
RIGHT = {3: [both_grown], 5: [back_and_forth]}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number], RIGHT.get(number, ()))


def test_the_numbers_that_the_solutions_name():
    assert round(exercises.largest_base(32, 128), 1) == 24.9
    assert round(exercises.enough_factor(32, 128, 1024)) == 181


def test_the_fault_is_right_at_the_start_and_keeps_no_length():
    """Exercise 4, what the page says: position 0 is right, and the length of a turned vector is not kept."""
    x, angle = torch.randn(2, 3, 5, 8, dtype=torch.float64), rope.angles(torch.arange(5), rope.inverse_frequencies(8))
    turned = exercises.hasty_rotation(x, angle)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert (turned.norm(dim=-1) / x.norm(dim=-1) - 1).abs()[:, :, 1:].max() > 0.1
