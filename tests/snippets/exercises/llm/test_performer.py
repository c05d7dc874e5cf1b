"""The exercises of the Performer post: answers that tempt, and what is said of each."""

import math

import pytest
import torch

from snippets.exercises.llm import performer as exercises
from snippets.llm import performer
from tests.snippets.exercises.answers import prove


def of_twice(length, error):
    return math.expm1(2 * length**2) / error**2


def linear_in_the_error(length, error):
    return exercises.features_needed(length, error) * error


def over_directions(x, omega):
    return exercises.hyperbolic_features(x, omega) * 2**0.5


def halved_away(x, omega):
    return torch.cat([performer.positive_features(x, omega), torch.zeros(len(x), len(omega))], dim=-1)


def undivided(features, query, key):
    return features.query(query) @ features.key(key).transpose(-1, -2)


def exact(features, query, key):
    return (query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5).softmax(-1)


def without_own(query, key, value, chunk):
    own = torch.arange(query.shape[2]) // chunk
    weight = (query @ key.transpose(-1, -2)) * (own[:, None] > own)
    return (weight / weight.sum(-1, keepdim=True)).nan_to_num() @ value


def not_faded(query, key, value, beta, decay):
    return performer.delta_net(query, key, value, beta)


def long_keys(query, key, value, beta, decay):
    return performer.recurrence(query, key, value, decay, beta, beta)


def all_written(query, key, value, beta, decay):
    unit = torch.nn.functional.normalize(key, dim=-1)
    return performer.recurrence(query, unit, value, decay, beta, torch.ones_like(beta))


WRONG = {
    1: [(of_twice, "x + y = 2x"), (linear_in_the_error, "square of 1 / error")],
    2: [
        (over_directions, "twice what it should be"),
        (halved_away, "by the directions alone"),
        (performer.positive_features, "two features for each direction"),
    ],
    3: [(undivided, "do not sum to 1"), (exact, "that is exact attention")],
    4: [(exercises.hasty_chunks, "twice, or before their time"), (without_own, "do not count")],
    5: [(not_faded, "does not fade"), (long_keys, "length 1"), (all_written, "multiplied by beta")],
}


@pytest.mark.parametrize("number", WRONG)
def test_answers(number):
    prove(exercises, number, WRONG[number])


def test_hyperbolic_features_have_less_variance():
    """Exercise 2, what the page says: less than positive features of as many numbers, at x = y and elsewhere."""
    x = torch.full((1, 4), 0.3, dtype=torch.float64)
    for y in (x, torch.tensor([[0.5, -0.2, 0.1, 0.4]], dtype=torch.float64)):
        found = {}
        for name, count, features in (
            ("hyperbolic", 8, exercises.hyperbolic_features),
            ("positive", 16, performer.positive_features),
        ):
            torch.manual_seed(0)
            draws = [torch.randn(count, 4, dtype=torch.float64) for _ in range(4000)]
            found[name] = torch.stack([(features(x, w) * features(y, w)).sum() for w in draws]).var()
        assert found["hyperbolic"] < 0.9 * found["positive"]
